//! The required content of a store after a crash: the acknowledged changes, drawn from a seed.

use std::collections::BTreeMap;

use mayfly::store::{Precondition, Store, StoreError};

use crate::dice::Dice;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    oldest: u64,
    /// Seed and length of each commit's bytes, oldest first.
    commits: BTreeMap<u64, (u64, usize)>,
    named: BTreeMap<String, (u64, usize)>,
}

#[derive(Clone, Debug)]
pub enum Change {
    Append(u64, usize),
    Put(String, u64, usize),
    Delete(String),
    RemoveBefore(u64),
}

impl Model {
    fn head(&self) -> u64 {
        self.commits.last_key_value().map_or(0, |(at, _)| *at)
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Append(seed, len) => {
                self.commits.insert(self.head() + 1, (*seed, *len));
                self.oldest = self.oldest.max(1);
            }
            Change::Put(name, seed, len) => drop(self.named.insert(name.clone(), (*seed, *len))),
            Change::Delete(name) => drop(self.named.remove(name)),
            Change::RemoveBefore(at) => {
                self.oldest = self.oldest.max((*at).min(self.head()));
                self.commits.retain(|p, _| *p >= self.oldest);
            }
        }
    }
}

/// A pattern whose length is no divisor of a page, so that each page of a commit has different bytes.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let pattern: Vec<u8> = (0..127).flat_map(|_| dice.roll().to_be_bytes()).collect();
    let mut out = pattern[..1009].repeat(len / 1009 + 1);
    out.truncate(len);
    out
}

fn draw(dice: &mut Dice, model: &Model) -> Change {
    let seed = dice.roll();
    let name = format!("n{}", dice.below(6));
    match dice.below(20) {
        0 => Change::RemoveBefore(model.oldest + dice.below(6)),
        1 | 2 => Change::Put(name, seed, dice.below(2_000) as usize),
        3 => Change::Delete(name),
        4 => Change::Append(seed, dice.below(200_000) as usize),
        5..8 => Change::Append(seed, dice.below(30_000) as usize),
        _ => Change::Append(seed, dice.below(3_000) as usize),
    }
}

fn make(store: &impl Store, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Append(seed, len) => store.append(store.head()? + 1, &bytes(*seed, *len)),
        Change::Put(name, seed, len) => store.put(name, &bytes(*seed, *len), Precondition::Any),
        Change::Delete(name) => store.delete(name, Precondition::Any),
        Change::RemoveBefore(at) => store.remove_before(*at),
    }
}

fn same(store: &impl Store, model: &Model) -> Result<(), String> {
    let ends = (store.oldest().unwrap(), store.head().unwrap());
    if ends != (model.oldest, model.head()) {
        return Err(format!("it has {ends:?}"));
    }
    let found = store.read(0, usize::MAX).map_err(|e| e.to_string())?;
    let places: Vec<u64> = found.iter().map(|e| e.at).collect();
    if !places.iter().eq(model.commits.keys()) {
        return Err(format!("it has the places {places:?}"));
    }
    for entry in found {
        let (seed, len) = model.commits[&entry.at];
        if entry.bytes[..] != bytes(seed, len) {
            return Err(format!("commit {} is not what was written", entry.at));
        }
    }
    let names = store.list("").map_err(|e| e.to_string())?;
    if !names.iter().eq(model.named.keys()) {
        return Err(format!("it has the names {names:?}"));
    }
    for (name, (seed, len)) in &model.named {
        if store.named(name).map_err(|e| e.to_string())? != Some(bytes(*seed, *len)) {
            return Err(format!("{name} is not what was written"));
        }
    }
    Ok(())
}

/// Counts the outcomes of changes in progress when the power failed.
#[derive(Default, Debug)]
pub struct Tally {
    crashes: u64,
    nothing_under_way: u64,
    whole: u64,
    absent: u64,
    commits: u64,
}

impl Tally {
    /// Records one crash and checks the reopened store: acknowledged changes are present, and a change in progress is present completely or
    /// not at all.
    pub fn take(&mut self, store: &impl Store, model: &mut Model, under_way: Option<Change>, which: &str) {
        self.crashes += 1;
        self.commits += model.commits.len() as u64;
        let Some(change) = under_way else {
            self.nothing_under_way += 1;
            same(store, model).unwrap_or_else(|e| panic!("{which}, nothing under way: {e}"));
            return;
        };
        let before = same(store, model);
        if before.is_ok() {
            self.absent += 1;
            return;
        }
        model.change(&change);
        same(store, model)
            .unwrap_or_else(|e| panic!("{which}, under way {change:?}:\nneither without it ({before:?})\nnor with it ({e})"));
        self.whole += 1;
    }

    /// Asserts that both outcomes occurred often enough: a run that never tears anything proves nothing.
    pub fn shows_something(&self) {
        println!("{self:?}");
        assert!(self.whole > self.crashes / 25 && self.absent > self.crashes / 20, "{self:?}");
    }
}

/// Makes changes until `changes` are made or the power fails, and adds acknowledged ones to the model. Returns the change that was not
/// acknowledged.
pub fn make_some(store: &impl Store, model: &mut Model, dice: &mut Dice, changes: u64) -> Option<Change> {
    for _ in 0..changes {
        let change = draw(dice, model);
        match make(store, &change) {
            Ok(()) => model.change(&change),
            Err(_) => return Some(change),
        }
    }
    None
}
