//! `-machine`, `-accel`, `-enable-kvm`, `-smp` and `-m`.

use super::error::{StartError, nearest};
use super::options::Options;
use super::value::{KeyValues, parse_bool, parse_number, parse_size, show_size};
use std::path::PathBuf;

/// Guest RAM without `-m`.
const DEFAULT_MEMORY: u64 = 128 << 20;
/// The least and the most guest RAM.
const MEMORY_RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;

const MIB: u64 = 1 << 20;

/// What `-machine`, `-accel` and `-smp` come to.
#[derive(Debug, Default)]
pub struct Machine {
    /// `-machine firmware=`.
    pub firmware: Option<PathBuf>,
    /// `-machine kernel=`.
    pub kernel: Option<PathBuf>,
    /// `-machine initrd=`.
    pub initrd: Option<PathBuf>,
    /// `-machine append=`.
    pub append: Option<String>,
    /// What executes.
    pub engine: Engine,
    /// `-accel ...,tb-size=`: bytes of compiled code at most.
    pub code_size: Option<usize>,
    /// `-accel jit,stress=`: executions of a block before its region is compiled, there and then.
    pub stress: Option<u32>,
    /// `-machine pcspk-audiodev=`, with the value that it is part of.
    pub speaker: Option<(String, String)>,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// As [`Engine::Compiler`] where the host allows that, else as [`Engine::Interpreter`].
    #[default]
    Best,
    /// The interpreter alone.
    Interpreter,
    /// The interpreter, and compiled code for what is hot.
    Compiler,
}

/// Switches of QEMU's `pc` that cannot be changed here, with the state that they are in.
const FIXED: &[(&str, bool)] = &[
    ("acpi", true),
    ("fd-bootchk", true),
    ("graphics", false),
    ("hpet", true),
    ("i8042", true),
    ("nvdimm", false),
    ("pic", true),
    ("pit", true),
    ("smm", false),
    ("usb", false),
    ("vmport", false),
];

/// Switches of QEMU's `pc` that change nothing that a guest could see.
const COSMETIC: &[&str] = &["dump-guest-core", "mem-merge", "suppress-vmdesc"];

/// Mebibytes of compiled code that can be asked for.
const MOST_CODE: u64 = 64 << 10;

/// Executions of a block before it is compiled that can be asked for.
const MOST_EXECUTIONS: u64 = 1_000_000;

/// Checks the options that choose the machine.
///
/// # Errors
/// A machine, engine, property or number of CPUs that does not exist.
pub fn parse(options: &Options) -> Result<Machine, StartError> {
    let mut machine = Machine::default();
    for text in &options.machine {
        let mut v = KeyValues::parse("machine", text, "type");
        if let Some(name) = v.take("type")? {
            check_type(&v, &name)?;
        }
        if let Some(names) = v.take("accel")? {
            machine.engine = find_engine("machine", text, names.split(':'))?;
        }
        machine.firmware = v.take("firmware")?.map(PathBuf::from).or(machine.firmware);
        machine.kernel = v.take("kernel")?.map(PathBuf::from).or(machine.kernel);
        machine.initrd = v.take("initrd")?.map(PathBuf::from).or(machine.initrd);
        machine.speaker = v.take("pcspk-audiodev")?.map(|id| (text.clone(), id)).or(machine.speaker);
        machine.append = v.take("append")?.or(machine.append);
        fixed_switches(&mut v)?;
        v.finish()?;
    }
    if options.enable_kvm {
        return Err(StartError::option(
            "enable-kvm",
            "emu has no hardware virtualisation; leave the option out, or use -accel tcg",
        ));
    }
    let mut names = Vec::new();
    for text in &options.accel {
        let mut v = KeyValues::parse("accel", text, "accel");
        let name = v.take("accel")?.unwrap_or_default();
        if let Some(thread) = v.take("thread")?.filter(|t| t != "single" && t != "multi") {
            return Err(v.error(format!("'thread={thread}': expected single or multi")));
        }
        if let Some(mebibytes) = v.take_number("tb-size", MOST_CODE)?.filter(|size| *size != 0) {
            machine.code_size = Some((mebibytes as usize) << 20);
        }
        machine.stress = stress(&mut v)?.or(machine.stress);
        v.finish()?;
        names.push(name);
    }
    if let Some(text) = options.accel.first() {
        machine.engine = find_engine("accel", text, names.iter().flat_map(|n| n.split(':')))?;
    }
    if machine.stress.is_some() && machine.engine != Engine::Compiler {
        return Err(StartError::option("accel", "'stress' tests compiled code and goes with jit"));
    }
    check_cpu_count(&options.smp)?;
    Ok(machine)
}

/// `stress=on`, which is 1, or a number of executions.
fn stress(v: &mut KeyValues) -> Result<Option<u32>, StartError> {
    let Some(word) = v.take("stress")? else { return Ok(None) };
    match (parse_bool(&word), parse_number(&word)) {
        (Some(on), _) => Ok(on.then_some(1)),
        (_, Some(count @ 1..=MOST_EXECUTIONS)) => Ok(Some(count as u32)),
        _ => Err(v.error(format!(
            "'stress={word}': expected on, off, or how often a block runs before it is compiled, from 1 to {MOST_EXECUTIONS}"
        ))),
    }
}

fn check_type(v: &KeyValues, name: &str) -> Result<(), StartError> {
    match name {
        "pc" => Ok(()),
        "isapc" | "none" | "q35" | "microvm" => {
            Err(v.error(format!("machine '{name}' is not implemented; nearest is 'pc'")))
        }
        _ if name.starts_with("pc-") => Err(v.error("versioned machines are not implemented; nearest is 'pc'")),
        _ => Err(v.error(format!("unsupported machine type '{name}'; -machine help lists what exists"))),
    }
}

fn fixed_switches(v: &mut KeyValues) -> Result<(), StartError> {
    for (key, state) in FIXED {
        // `auto` leaves the choice to the machine.
        let word = match v.take(key) {
            Ok(None) => continue,
            Ok(Some(word)) => word,
            Err(_) => "on".into(),
        };
        let on = parse_bool(&word);
        if word != "auto" && on != Some(*state) {
            let state = if *state { "on" } else { "off" };
            return Err(v.error(format!("'{key}={word}' is not implemented; {key} is always {state}")));
        }
    }
    for key in COSMETIC {
        v.take_bool(key)?;
    }
    Ok(())
}

/// The first engine of a list of QEMU accelerator names that exists.
fn find_engine<'a>(option: &str, text: &str, names: impl Iterator<Item = &'a str>) -> Result<Engine, StartError> {
    let mut missing = Vec::new();
    for name in names {
        match name {
            "tcg" => return Ok(Engine::Best),
            "interp" => return Ok(Engine::Interpreter),
            "jit" => return Ok(Engine::Compiler),
            "kvm" | "hvf" | "whpx" | "xen" | "nvmm" | "hax" | "mshv" => {
                missing.push(format!("{name}: emu has no hardware virtualisation; nearest is tcg"));
            }
            _ => {
                let near = nearest(name, ["tcg", "interp", "jit"]).unwrap_or("tcg");
                return Err(StartError::value(
                    option,
                    text,
                    format!("invalid accelerator '{name}'; nearest is {near}"),
                ));
            }
        }
    }
    let problem = missing.first().cloned().unwrap_or_else(|| "needs a name: tcg, interp or jit".into());
    Err(StartError::value(option, text, problem))
}

fn check_cpu_count(values: &[String]) -> Result<(), StartError> {
    for text in values {
        let mut v = KeyValues::parse("smp", text, "cpus");
        for key in ["cpus", "maxcpus", "sockets", "dies", "clusters", "modules", "cores", "threads"] {
            match v.take_number(key, 1 << 20)? {
                None | Some(1) => {}
                Some(0) => return Err(v.error(format!("'{key}' must be at least 1"))),
                Some(_) => return Err(v.error("several CPUs are not implemented; nearest is -smp 1")),
            }
        }
        v.finish()?;
    }
    Ok(())
}

/// Bytes of guest RAM that `-m` asks for.
///
/// # Errors
/// No size, or one that no machine can have.
pub fn memory_size(values: &[String]) -> Result<u64, StartError> {
    let mut size = DEFAULT_MEMORY;
    for text in values {
        let mut v = KeyValues::parse("m", text, "size");
        if let Some(word) = v.take("size")? {
            let range = format!("from {} to {}", show_size(*MEMORY_RANGE.start()), show_size(*MEMORY_RANGE.end()));
            let Some(bytes) = parse_size(&word, MIB) else {
                return Err(v.error(format!("not a size; expected {range}, in MiB without a suffix K, M, G or T")));
            };
            if !MEMORY_RANGE.contains(&bytes) {
                return Err(v.error(format!("guest RAM must be {range}")));
            }
            size = bytes;
        }
        if v.take("slots")?.is_some_and(|s| s != "0") || v.take("maxmem")?.is_some() {
            return Err(v.error("memory hotplug is not implemented; nearest is -m SIZE"));
        }
        v.finish()?;
    }
    Ok(size)
}

/// What `-machine help` prints.
pub fn help() -> &'static str {
    "Supported machines are:\npc                   Standard PC (i440FX + PIIX, 1996) (default)\n"
}

/// What `-accel help` prints.
pub fn accel_help() -> &'static str {
    "Accelerators supported in emu:\ntcg                  the best engine for this host: jit, or interp where that does not exist (default)\ninterp               the interpreter alone\njit                  the interpreter, with compiled code for what is hot;\n                     stress=on or stress=N, for tests: all code, at once, when it has run once or N times\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(words: &[&str]) -> Result<(), String> {
        let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
        parse(&options).map(drop).map_err(|e| e.line())
    }

    fn size(text: &str) -> Result<u64, String> {
        memory_size(&[text.to_string()]).map_err(|e| e.line())
    }

    #[test]
    fn accelerator_list_falls_through_to_one_that_exists() {
        assert_eq!(machine(&["-machine", "type=pc,accel=kvm:tcg"]), Ok(()));
        assert_eq!(machine(&["-accel", "kvm", "-accel", "interp"]), Ok(()));
        assert_eq!(machine(&["-accel", "tcg,thread=single"]), Ok(()));
        assert_eq!(machine(&["-accel", "jit,tb-size=16"]), Ok(()));
        assert_eq!(machine(&["-accel", "jit,stress=on"]), Ok(()));
        assert_eq!(machine(&["-accel", "jit,stress=20,tb-size=1"]), Ok(()));
        assert!(machine(&["-accel", "jit,stress=0"]).unwrap_err().contains("'stress=0': expected on, off, or"));
        assert!(machine(&["-accel", "interp,stress=on"]).unwrap_err().contains("goes with jit"));
        assert!(machine(&["-accel", "jit,tb-size=16m"]).unwrap_err().contains("'tb-size=16m' is not a number"));
        assert!(machine(&["-accel", "kvm"]).unwrap_err().contains("no hardware virtualisation"));
        assert!(machine(&["-machine", "accel=kvm"]).is_err());
        assert!(machine(&["-enable-kvm"]).unwrap_err().starts_with("-enable-kvm: "));
        assert!(machine(&["-accel", "foo"]).is_err());
    }

    #[test]
    fn machine_switches_are_accepted_only_in_the_state_they_have() {
        assert!(machine(&["-M", "pc,usb=off,vmport=auto,dump-guest-core=off"]).is_ok());
        assert_eq!(
            machine(&["-M", "pc,hpet=off"]),
            Err("-machine pc,hpet=off: 'hpet=off' is not implemented; hpet is always on".into())
        );
        assert!(machine(&["-M", "q35"]).unwrap_err().contains("nearest is 'pc'"));
        assert!(machine(&["-M", "pc-i440fx-10.0"]).unwrap_err().contains("nearest is 'pc'"));
        assert!(machine(&["-M", "pc,foo=1"]).unwrap_err().contains("unknown property 'foo'"));
    }

    #[test]
    fn one_cpu_is_accepted_in_all_spellings_and_more_are_refused() {
        for text in ["1", "cpus=1", "1,sockets=1,cores=1,threads=1", "1,maxcpus=1"] {
            assert!(machine(&["-smp", text]).is_ok(), "{text}");
        }
        for text in ["0", "2", "1,maxcpus=2", "sockets=2", "x", "1,foo=1"] {
            assert!(machine(&["-smp", text]).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_sizes_outside_what_a_machine_can_have_are_refused() {
        assert_eq!(size("512"), Ok(512 << 20));
        assert_eq!(size("size=1G"), Ok(1 << 30));
        assert_eq!(size("0"), Err("-m 0: guest RAM must be from 1M to 1T".into()));
        assert_eq!(size("9T"), Err("-m 9T: guest RAM must be from 1M to 1T".into()));
        for text in ["", "foo", "-1", "99999999999999999999", "1G,maxmem=2G", "64,foo=1", "512K"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(memory_size(&[]), Ok(DEFAULT_MEMORY));
    }
}
