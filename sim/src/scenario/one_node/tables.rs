//! Clients of a table that change the same few keys under conditions.

use super::stage::Stage;
use crate::report::Outcome;
use crate::world::executor;
use crate::world::rng::Rng;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thalweg_client::table::{Condition, Table, Versioned};
use thalweg_types::name::ScopedStream;

/// Keys that are fought over.
const KEYS: u64 = 3;

/// What is known of one key.
#[derive(Default)]
struct Key {
    /// Values that somebody has sent.
    sent: BTreeSet<Bytes>,
    /// The value of each version that somebody was told.
    told: BTreeMap<i64, Bytes>,
    /// Versions that a change under a condition was told to have replaced.
    replaced: BTreeSet<i64>,
}

/// What one table has been through.
pub(super) struct TableLog {
    name: ScopedStream,
    keys: Vec<Key>,
    values: u64,
}

impl TableLog {
    /// A table of which nothing is known.
    pub(super) fn new(name: ScopedStream) -> Self {
        Self { name, keys: (0..KEYS).map(|_| Key::default()).collect(), values: 0 }
    }

    /// The newest version that anybody was told.
    fn newest(&self, key: usize) -> Option<i64> {
        self.keys[key].told.last_key_value().map(|(version, _)| *version)
    }

    fn told(&mut self, key: usize, version: i64, value: &Bytes, out: &mut Outcome) {
        let name = &self.name;
        let known = self.keys[key].told.entry(version).or_insert_with(|| value.clone());
        if known != value {
            out.violate("I4", format!("{name} key {key} version {version} has two values"));
        }
    }

    /// A get has answered; `before` was the newest version when it was sent.
    fn got(&mut self, key: usize, before: Option<i64>, got: Option<&Versioned>, out: &mut Outcome) {
        let name = self.name.clone();
        match got {
            None if before.is_some() => {
                out.violate("I1", format!("{name} key {key} is not there, it had {before:?}"));
            }
            None => {}
            Some(Versioned { value, version }) => {
                if !self.keys[key].sent.contains(value) {
                    out.violate("I3", format!("{name} key {key}: a value that nobody sent"));
                }
                if before.is_some_and(|before| *version < before) {
                    let what = format!("{name} key {key}: version {version} behind {before:?}");
                    out.violate("I11", what);
                }
                self.told(key, *version, value, out);
            }
        }
    }

    /// A change was acknowledged.
    fn put(
        &mut self,
        key: usize,
        (before, condition): (Option<i64>, Condition),
        (version, value): (i64, &Bytes),
        out: &mut Outcome,
    ) {
        let name = self.name.clone();
        if before.is_some_and(|before| version <= before) {
            out.violate("I11", format!("{name} key {key}: new version {version}, had {before:?}"));
        }
        match condition {
            Condition::Version(old) if !self.keys[key].replaced.insert(old) => {
                out.violate("I11", format!("{name} key {key}: version {old} was replaced twice"));
            }
            Condition::Absent if before.is_some() => {
                out.violate("I11", format!("{name} key {key}: made although it was there"));
            }
            _ => {}
        }
        self.told(key, version, value, out);
    }
}

fn name_of(key: usize) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

async fn create(table: &Table) {
    while let Err(error) = table.create().await {
        tracing::debug!(%error, "no table yet");
        executor::sleep(Duration::from_millis(50)).await;
    }
}

/// Gets and puts until the stage closes.
pub(super) async fn perform(stage: Stage, number: usize, mut rng: Rng) {
    let name = stage.with(|shared| shared.tables[number].name.clone());
    let table = stage.client.table(&name);
    create(&table).await;
    while !stage.is_closing() {
        stage.pause(rng.millis(0, 40)).await;
        let key = rng.index(usize::try_from(KEYS).expect("few"));
        let before = stage.with(|shared| shared.tables[number].newest(key));
        if rng.percent(40) {
            if let Ok(got) = table.get(name_of(key)).await {
                stage.with(|shared| {
                    shared.tables[number].got(key, before, got.as_ref(), &mut shared.out);
                });
                stage.count("table reads", 1);
            }
            continue;
        }
        let condition = match before {
            None => Condition::Absent,
            Some(_) if rng.percent(20) => Condition::Any,
            Some(version) => Condition::Version(version),
        };
        let value = stage.with(|shared| {
            let log = &mut shared.tables[number];
            log.values += 1;
            let value = Bytes::from(format!("value-{}-{}", log.values, "x".repeat(rng.index(200))));
            log.keys[key].sent.insert(value.clone());
            value
        });
        if let Ok(version) = table.put(name_of(key), value.clone(), condition).await {
            stage.with(|shared| {
                let log = &mut shared.tables[number];
                log.put(key, (before, condition), (version, &value), &mut shared.out);
            });
            stage.count("table changes acked", 1);
        }
    }
}

/// Reads every key once more.
pub(super) async fn judge(stage: &Stage) {
    let names =
        stage.with(|shared| shared.tables.iter().map(|log| log.name.clone()).collect::<Vec<_>>());
    for (number, name) in names.into_iter().enumerate() {
        let table = stage.client.table(&name);
        for key in 0..usize::try_from(KEYS).expect("few") {
            let before = stage.with(|shared| shared.tables[number].newest(key));
            match table.get(name_of(key)).await {
                Ok(got) => stage.with(|shared| {
                    shared.tables[number].got(key, before, got.as_ref(), &mut shared.out);
                }),
                Err(error) if before.is_some() => {
                    let what = format!("{name} key {key} cannot be read: {error}");
                    stage.with(|shared| shared.out.violate("I1", what));
                }
                Err(_) => {}
            }
        }
    }
}
