#!/bin/busybox sh
# What udhcpc of emu's network guest calls: configures the interface, the route and the name server that DHCP has brought.
case $1 in
deconfig) ifconfig "$interface" 0.0.0.0 up ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
    [ -z "$router" ] || route add default gw "$router" dev "$interface"
    for server in $dns; do
        echo "nameserver $server"
    done >/etc/resolv.conf
    echo "emu-guest: $interface has $ip${boot_file:+, boots $boot_file}"
    ;;
esac
