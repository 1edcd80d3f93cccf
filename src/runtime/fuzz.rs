//! Fuzzing of what reads foreign bytes, in ordinary tests: inputs are made of a kept corpus by mutation, the same ones at
//! every run.
//!
//! A target says what came of an input; an input with an outcome that was not seen before is mutated further, which leads
//! deeper than noise. What fails is made shorter and written into `tests/fuzz/corpus/NAME`, to be kept and tried first from
//! then on. `PORTICO_FUZZ_ITERATIONS` and `PORTICO_FUZZ_SEED` make a longer and another run of it (`make fuzz`).
#![allow(clippy::ptr_arg, reason = "the driver's inputs are of one type")]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use serde_json::{Map, Value};

/// A second or so, in a build without optimization.
const ITERATIONS: u64 = 3_000;
/// Inputs that are mutated further.
const MOST_KEPT: usize = 512;
const LONGEST: usize = 16 << 10;
/// Numbers at which arithmetic goes wrong, and bytes that end or begin something.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\r\n\t /:;.%\"\\{}[]-0";
const NUMBERS: &[i64] = &[0, -1, 1, 65_535, 65_536, 2_147_483_648, i64::MAX, i64::MIN];

/// Tries the corpus of this name, these inputs, and mutations of both.
pub(crate) fn bytes<O: Hash>(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) -> O) {
    let mut inputs: Vec<Vec<u8>> = corpus(name);
    inputs.extend_from_slice(seeds);
    drive(name, inputs, mutate_bytes, Vec::clone, shorter_bytes, |input| target(input));
}

/// The same for JSON: its structure is mutated, not its text.
pub(crate) fn json<O: Hash>(name: &str, seeds: &[Value], target: impl Fn(&Value) -> O) {
    let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).expect("the corpus is JSON");
    let mut inputs: Vec<Value> = corpus(name).into_iter().map(read).collect();
    inputs.extend_from_slice(seeds);
    let text = |value: &Value| serde_json::to_vec_pretty(value).expect("written");
    drive(name, inputs, mutate_json, text, shorter_json, target);
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(folder(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn drive<T: Clone, O: Hash>(
    name: &str,
    mut inputs: Vec<T>,
    mutate: impl Fn(&T, &T, &mut Dice) -> T,
    write: impl Fn(&T) -> Vec<u8>,
    shorter: impl Fn(&T, u64) -> Option<T>,
    target: impl Fn(&T) -> O,
) {
    assert!(!inputs.is_empty(), "{name} has no corpus");
    let mut seen = HashSet::new();
    let mut is_new = |input: &T| match outcome(&target, input) {
        Ok(outcome) => seen.insert(outcome),
        Err(panic) => {
            let least = shortened(input, &shorter, |input| outcome(&target, input).is_err());
            let bytes = write(&least);
            let file = folder(name).join(format!("found-{:016x}", digest(&bytes)));
            std::fs::create_dir_all(folder(name)).expect("a folder for what is found");
            std::fs::write(&file, &bytes).expect("what is found is kept");
            eprintln!("{name} fails over {}", file.display());
            resume_unwind(panic)
        }
    };
    for input in &inputs {
        is_new(input);
    }
    let mut dice = Dice(from_environment("PORTICO_FUZZ_SEED", 1));
    for _ in 0..from_environment("PORTICO_FUZZ_ITERATIONS", ITERATIONS) {
        let mut input = dice.one(&inputs).clone();
        for _ in 0..=dice.below(4) {
            input = mutate(&input, dice.one(&inputs), &mut dice);
        }
        if is_new(&input) && inputs.len() < MOST_KEPT {
            inputs.push(input);
        }
    }
}

fn outcome<T, O: Hash>(target: impl Fn(&T) -> O, input: &T) -> std::thread::Result<u64> {
    catch_unwind(AssertUnwindSafe(|| digest(&target(input))))
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The last of ever shorter inputs that still fail.
fn shortened<T: Clone>(input: &T, shorter: impl Fn(&T, u64) -> Option<T>, fails: impl Fn(&T) -> bool) -> T {
    let mut least = input.clone();
    let mut at = 0;
    while let Some(less) = shorter(&least, at) {
        if fails(&less) {
            least = less;
        } else {
            at += 1;
        }
    }
    least
}

fn shorter_bytes(input: &Vec<u8>, at: u64) -> Option<Vec<u8>> {
    let at = usize::try_from(at).ok().filter(|at| *at < input.len())?;
    let mut less = input.clone();
    less.remove(at);
    Some(less)
}

/// Without its `at`th member, counted over the whole tree.
fn shorter_json(input: &Value, at: u64) -> Option<Value> {
    let mut less = input.clone();
    let mut left = at;
    remove_member(&mut less, &mut left).then_some(less)
}

fn remove_member(value: &mut Value, left: &mut u64) -> bool {
    let count = match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => return false,
    };
    for at in 0..count {
        let is_it = *left == 0;
        *left = left.saturating_sub(1);
        let inner = match value {
            Value::Object(map) => {
                let key = map.keys().nth(at).cloned().unwrap_or_default();
                if is_it {
                    map.remove(&key);
                    return true;
                }
                map.get_mut(&key)
            }
            Value::Array(items) if is_it => {
                items.remove(at);
                return true;
            }
            Value::Array(items) => items.get_mut(at),
            _ => None,
        };
        if inner.is_some_and(|inner| remove_member(inner, left)) {
            return true;
        }
    }
    false
}

fn mutate_bytes(input: &Vec<u8>, other: &Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.clone();
    let at = dice.below(bytes.len() + 1);
    let end = at + dice.below((bytes.len() - at).min(32) + 1);
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = *dice.one(BYTES),
        2 => bytes.insert(at, *dice.one(BYTES)),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].repeat(1 + dice.below(8));
            bytes.splice(at..at, piece);
        }
        5 => {
            let from = dice.below(other.len() + 1);
            let to = from + dice.below((other.len() - from).min(64) + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            let number = dice.one(NUMBERS).to_string();
            bytes.splice(at..end, number.into_bytes());
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn mutate_json(input: &Value, other: &Value, dice: &mut Dice) -> Value {
    let mut value = input.clone();
    let from = place(&mut other.clone(), dice).clone();
    let strange = match dice.below(8) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::from(*dice.one(NUMBERS)),
        3 => Value::from(""),
        4 => Value::Array(vec![from.clone(), from]),
        5 => Value::from("../\u{e9}\n".repeat(1 + dice.below(60))),
        _ => from,
    };
    let how = dice.below(5);
    match place(&mut value, dice) {
        Value::Object(map) if how == 0 => {
            let key = dice.key(map);
            map.remove(&key);
        }
        Value::Object(map) if how == 1 => {
            let key = dice.key(map);
            map.insert(key, strange);
        }
        Value::Array(items) if how == 0 => items.push(strange),
        Value::Array(items) if how == 1 => drop(items.pop()),
        here => *here = strange,
    }
    value
}

/// Any place of a tree, more often a deep one.
fn place<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let count = match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if count == 0 || dice.below(6) == 0 {
        return value;
    }
    let at = dice.below(count);
    let inner = match value {
        Value::Object(map) => map.values_mut().nth(at),
        Value::Array(items) => items.get_mut(at),
        _ => None,
    };
    place(inner.expect("counted"), dice)
}

/// Randomness that is the same everywhere (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end.max(1) as u64)).unwrap_or_default()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn key(&mut self, of: &Map<String, Value>) -> String {
        let at = self.below(of.len());
        of.keys().nth(at).cloned().unwrap_or_default()
    }
}

#[test]
fn what_fails_is_made_short() {
    let fails = |input: &Vec<u8>| input.windows(2).any(|pair| pair == b"ab");
    assert_eq!(shortened(&b"xxabyy".to_vec(), shorter_bytes, fails), b"ab");
    let deep = serde_json::json!({"a": [{"b": 1, "c": 2}], "d": 3});
    let fails = |input: &Value| input.pointer("/a/0/c").is_some();
    assert_eq!(shortened(&deep, shorter_json, fails), serde_json::json!({"a": [{"c": 2}]}));
}

#[test]
fn mutations_find_what_is_behind_a_few_checks() {
    let found = std::cell::Cell::new(false);
    let seeds = [b"key=1".to_vec(), b"other".to_vec()];
    bytes("none", &seeds, |input| {
        let begins = input.starts_with(b"key=");
        let is_number = begins && input[4..].iter().all(u8::is_ascii_digit);
        found.set(found.get() || (is_number && input.len() > 8));
        (begins, is_number.then_some(input.len()))
    });
    assert!(found.get());
}
