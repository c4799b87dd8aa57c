//! Compiles many programs on several threads, through the cache; results keep the order of the requests.
//!
//! Knows programs, not kernels. Equal programs are compiled once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::{Cache, ProgramKey};
use super::nvrtc::{Compiled, Nvrtc, NvrtcError, Program};

/// Compiles `programs` on at most `threads` threads (at least one).
///
/// Result `i` belongs to program `i`, whatever the thread count. With a cache, stored programs are
/// read and new ones written; a failing write only costs the next compilation its time.
pub fn compile_all(
    nvrtc: &Nvrtc,
    programs: &[Program],
    threads: usize,
    cache: Option<&Cache>,
) -> Vec<Result<Compiled, NvrtcError>> {
    let keys: Vec<ProgramKey> =
        programs.iter().map(|program| ProgramKey::of(program, nvrtc.version())).collect();
    let mut first: BTreeMap<ProgramKey, usize> = BTreeMap::new();
    let mut distinct = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        first.entry(*key).or_insert_with(|| {
            distinct.push(index);
            index
        });
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Result<Compiled, NvrtcError>>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, distinct.len().max(1)) {
            scope.spawn(|| {
                while let Some(&index) = distinct.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = compile_one(nvrtc, &programs[index], keys[index], cache);
                    done.lock()
                        .expect("no thread panics while it holds the lock")
                        .insert(index, outcome);
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics while it holds the lock");
    gather(programs, &keys, &first, &mut done, nvrtc)
}

fn compile_one(
    nvrtc: &Nvrtc,
    program: &Program,
    key: ProgramKey,
    cache: Option<&Cache>,
) -> Result<Compiled, NvrtcError> {
    if let Some(stored) = cache.and_then(|cache| cache.read(key)) {
        return Ok(stored);
    }
    let span = tracing::debug_span!("nvrtc", program = %program.name, arch = %program.arch);
    let compiled = span.in_scope(|| nvrtc.compile(program))?;
    if let Some(Err(error)) = cache.map(|cache| cache.write(key, &compiled)) {
        tracing::warn!(%error, "the kernel cache could not be written");
    }
    Ok(compiled)
}

/// Hands each request its result; repeated programs get copies, repeated refusals are compiled again for their log.
fn gather(
    programs: &[Program],
    keys: &[ProgramKey],
    first: &BTreeMap<ProgramKey, usize>,
    done: &mut BTreeMap<usize, Result<Compiled, NvrtcError>>,
    nvrtc: &Nvrtc,
) -> Vec<Result<Compiled, NvrtcError>> {
    let copies: BTreeMap<usize, Compiled> = done
        .iter()
        .filter_map(|(index, outcome)| Some((*index, outcome.as_ref().ok()?.clone())))
        .collect();
    (0..programs.len())
        .map(|index| match (done.remove(&index), copies.get(&first[&keys[index]])) {
            (Some(outcome), _) => outcome,
            (None, Some(copy)) => Ok(copy.clone()),
            (None, None) => nvrtc.compile(&programs[index]),
        })
        .collect()
}
