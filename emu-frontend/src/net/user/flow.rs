//! Numbered slots for flows, a bounded number of them: when all are taken, the one that has been idle for longest makes way.

use std::time::Instant;

/// What can be told how long it has been idle.
pub trait Idle {
    /// When it was last used.
    fn used(&self) -> Instant;
}

/// The slots.
pub struct Slots<T> {
    slots: Vec<Option<T>>,
    most: usize,
}

impl<T: Idle> Slots<T> {
    /// At most `most` of them.
    pub fn new(most: usize) -> Slots<T> {
        Slots { slots: Vec::new(), most }
    }

    /// A slot for a new flow, from which what was there is gone.
    pub fn free_slot(&mut self) -> usize {
        if let Some(free) = self.slots.iter().position(Option::is_none) {
            return free;
        }
        if self.slots.len() < self.most {
            self.slots.push(None);
            return self.slots.len() - 1;
        }
        let idle = self.slots.iter().enumerate().min_by_key(|(_, flow)| flow.as_ref().map(T::used));
        let slot = idle.map_or(0, |(slot, _)| slot);
        self.slots[slot] = None;
        slot
    }

    /// Puts a flow into a slot from [`Slots::free_slot`].
    pub fn put(&mut self, slot: usize, flow: T) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(flow);
        }
    }

    /// The slot of the first flow that `f` says is it.
    pub fn find(&self, f: impl Fn(&T) -> bool) -> Option<usize> {
        self.slots.iter().position(|flow| flow.as_ref().is_some_and(&f))
    }

    /// The flow in a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = None;
        }
    }

    /// Frees the slots of all flows that `f` does not want to keep.
    pub fn retain(&mut self, f: impl Fn(&T) -> bool) {
        self.slots.iter_mut().filter(|flow| flow.as_ref().is_some_and(|flow| !f(flow))).for_each(|place| *place = None);
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}
