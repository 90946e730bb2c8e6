//! Looks into the storages themselves: every committed entry that is kept must have its copies, and all equal.

use super::history::id;
use super::nemesis::World;
use super::site::{Node, Process};
use thalweg_log::engine::Engine;
use thalweg_log::register::{ContainerLog, LedgerRecord, LedgerStage};
use thalweg_log::storage::Storage as _;
use thalweg_types::id::{Address, EntryId, LedgerId, ReplicaId};

/// What the storages that are mounted hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    /// Entries looked at.
    pub(super) entries: u64,
    /// Copies that are whole and right.
    pub(super) copies: u64,
    /// Entries with fewer copies in their ensemble than were wanted.
    pub(super) few: Vec<String>,
    /// Entries without any.
    pub(super) gone: Vec<String>,
    /// Copies that read well and are wrong, though nothing has happened to their disk.
    pub(super) wrong: Vec<String>,
    /// Copies on damaged disks that read well and are wrong.
    pub(super) unsound: Vec<String>,
}

/// What one storage says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    Good,
    Wrong,
    None,
}

fn node_of(world: &World, replica: ReplicaId) -> Option<(&Node, &Process)> {
    let serving = |node| Option::zip(Some(node), Node::process(node));
    world.nodes.iter().filter_map(serving).find(|(_, process)| process.replica == replica)
}

/// True if the replica says that it has the entry, and has no reason to be wrong.
fn claims((node, process): (&Node, &Process), container: usize, address: Address) -> bool {
    let ledger = LedgerId { container: id(container), epoch: address.epoch };
    let run = process.facts(ledger).filter(|run| run.certain && !node.is_tainted);
    run.is_some_and(|run| (run.base..run.end).contains(&address.entry))
}

async fn look(world: &World, engine: &Engine, container: usize, address: Address) -> Copy {
    let ledger = LedgerId { container: id(container), epoch: address.epoch };
    let content = world.cast.stage.with(|history| history.content(container, address));
    let Ok(found) = engine.headers(ledger, address.entry, 1).await else { return Copy::None };
    let Some(stored) = found.first().filter(|stored| stored.entry == address.entry) else {
        return Copy::None;
    };
    let Ok(payload) = engine.payload(ledger, address.entry).await else { return Copy::None };
    let right = content
        .is_some_and(|content| content.headers() == stored.headers && content.payload() == payload);
    if right { Copy::Good } else { Copy::Wrong }
}

impl Audit {
    /// Looks at every kept entry of every container; `wanted` copies are enough.
    pub(super) async fn of(world: &World, wanted: usize) -> Self {
        let mut audit = Self::default();
        for container in 0..world.cast.stage.containers() {
            audit.container(world, container, wanted).await;
        }
        audit
    }

    /// Looks at the kept entries of one container.
    pub(super) async fn container(&mut self, world: &World, container: usize, wanted: usize) {
        let Some(log) = world.cast.register.get(id(container)) else { return };
        for ledger in &log.ledgers {
            self.ledger(world, &log, ledger, (container, wanted)).await;
        }
    }

    async fn ledger(
        &mut self,
        world: &World,
        log: &ContainerLog,
        ledger: &LedgerRecord,
        (container, wanted): (usize, usize),
    ) {
        let epoch = ledger.epoch;
        let end = match ledger.stage {
            LedgerStage::Closed { end } => end.0,
            _ => world.cast.stage.with(|history| history.committed_end(container, epoch)),
        };
        for entry in (log.keep_from_in(epoch).0..end).map(EntryId) {
            let address = Address::new(epoch, entry);
            let at = format!("c{container} {address}");
            let Some(fragment) = ledger.fragment_of(entry) else {
                self.gone.push(format!("{at} is in no fragment"));
                continue;
            };
            let mut good = 0;
            for replica in &fragment.ensemble {
                let Some((node, process)) = node_of(world, *replica) else { continue };
                match look(world, &process.engine, container, address).await {
                    Copy::Good => good += 1,
                    Copy::Wrong if node.is_tainted => {
                        self.unsound.push(format!("{at} is another on the damaged {}", node.id));
                    }
                    Copy::Wrong => self.wrong.push(format!("{at} is another on {}", node.id)),
                    Copy::None if claims((node, process), container, address) => {
                        self.wrong.push(format!("{at} is not there, but {} says so", node.id));
                    }
                    Copy::None => {}
                }
            }
            self.entries += 1;
            self.copies += good as u64;
            if good == 0 {
                self.gone.push(format!("{at} has no copy"));
            }
            if good < wanted {
                self.few.push(format!("{at} has {good} copies"));
            }
        }
    }
}
