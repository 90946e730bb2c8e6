//! Mounting a storage: superblock, files, scan, START, and only then the first answer.

use super::config::Config;
use super::core::{Class, Core, Placed, Pool, RESERVES, State};
use super::error::{StartError, io_error};
use super::files::{
    FIRST_BATCH, LogFile, Names, Pace, Spare, activate, in_use_name, prepared_name, renewed, retire,
};
use super::format::{
    BATCH_OVERHEAD, BLOCK, BlockFlaw, Chain, FileHeader, Record, Start, Superblock, VERSION, encode,
};
use super::identity::{self, Vouched};
use super::index::Spot;
use super::keeper::{new_spare, prepare};
use super::scan::{Doubt, Scanned, place, scan, scan_doubtful};
use super::superblock::Copies;
use super::writer::Writer;
use crate::frame::Frame;
use crate::mounts::{Mounts, Standing};
use crate::storage::{Recovered, StorageProgress};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thalweg_actor::disk::Open;
use thalweg_actor::env::Env;
use thalweg_actor::{planted, probe};
use thalweg_types::id::StorageUuid;
use tokio::sync::{Notify, watch};

/// What the file of a start on a full disk has room for besides START, in bytes: the facts and first entries of all
/// containers. Less if the reserve is small.
const START_ROOM: u64 = 64 * BLOCK as u64;

/// A mounted storage, not yet running.
pub(super) struct Mounted {
    pub core: Arc<Core>,
    pub writer: Writer,
    pub recovered: Recovered,
}

/// Mounts the storage in the folder of `env`. A crash in the middle leaves it to the next mount.
///
/// With `mounts` the storage has peers: damage that cannot be put down to single ledgers puts it in limbo instead of
/// refusing the start, and a storage that is not what it claims to be is set aside for a new one.
pub(super) async fn open(
    env: Env,
    config: Config,
    mounts: Option<&dyn Mounts>,
) -> Result<Mounted, StartError> {
    loop {
        match attempt(&env, &config, mounts).await? {
            Attempt::Mounted(mounted) => return Ok(*mounted),
            Attempt::Lost { reason } => identity::set_aside(&env, &config, &reason).await?,
        }
    }
}

/// What one attempt to mount came to.
enum Attempt {
    Mounted(Box<Mounted>),
    /// What lies in the folder may not be served under its identity.
    Lost {
        reason: String,
    },
}

async fn attempt(
    env: &Env,
    config: &Config,
    mounts: Option<&dyn Mounts>,
) -> Result<Attempt, StartError> {
    let folder = env.disk.describe();
    let fail = |action| io_error(&folder, "", action);
    let listed = env.disk.list().await.map_err(fail("list it"))?;
    let names = Names::sort(&listed, &config.bystanders);
    let is_new = is_new(env, &names, &folder).await?;
    if is_new {
        if let Some(name) = names.foreign {
            return Err(StartError::Foreign { folder, name });
        }
        create_storage(env, config).await.map_err(fail("create a log in it"))?;
    }
    let mut superblock = match Copies::open(&env.disk).await {
        Err(error @ StartError::Superblock { .. }) if mounts.is_some() => {
            return Ok(Attempt::Lost { reason: error.to_string() });
        }
        copies => copies?,
    };
    is_ours(&folder, superblock.content(), config)?;
    let before = *superblock.content();
    let mut noted = Standing::default();
    if let Some(mounts) = mounts {
        match identity::standing(env, mounts, &before).await {
            Ok(standing) => noted = standing,
            Err(reason) => return Ok(Attempt::Lost { reason }),
        }
    }
    let (logs, scanned) = if mounts.is_some() {
        let (logs, flaws) = identity::open_usable(env, &folder, &names, &before).await?;
        let doubt = Doubt { from: before.limbo_from, clean: before.clean };
        let scanned = scan_doubtful(&folder, &logs, &flaws, doubt).await?;
        (logs, scanned)
    } else {
        let logs = open_files(env, &folder, &names, &before).await?;
        let scanned = scan(&folder, &logs, before.clean).await?;
        (logs, scanned)
    };
    let seq = scanned.start_seq(before.mount_seq + 1);
    let mount = superblock.change(|content| {
        content.mount_seq += 1;
        content.clean = 0;
        match scanned.limbo_from {
            Some(from) if mounts.is_none() => {
                let known = if content.limbo_from == 0 { from } else { content.limbo_from };
                content.limbo_from = from.min(known).max(1);
            }
            // Because: this start states anew what it knows, and the next one goes by that.
            found if mounts.is_some() && (found.is_some() || content.in_limbo()) => {
                content.limbo_from = seq;
            }
            _ => {}
        }
    });
    mount.await.map_err(fail("write a superblock of it"))?;
    superblock.sync_names().await.map_err(fail("sync it"))?;
    let mut vouched = Vouched::default();
    if let Some(mounts) = mounts {
        if let Some(reason) = identity::register(env, mounts, &before, noted).await {
            return Ok(Attempt::Lost { reason });
        }
        if superblock.content().in_limbo() {
            vouched = identity::vouch(env, mounts, &scanned).await;
        }
    }
    let mounted =
        start(env.clone(), config.clone(), superblock, (logs, names), scanned, vouched).await?;
    Ok(Attempt::Mounted(Box::new(mounted)))
}

/// True if the folder provably never held a log that answered anybody.
async fn is_new(env: &Env, names: &Names, folder: &str) -> Result<bool, StartError> {
    if names.is_blank() {
        return Ok(true);
    }
    if !names.in_use.is_empty() || !names.prepared.is_empty() || !names.spares.is_empty() {
        return Ok(false);
    }
    // Superblocks alone: a creation that did not end, unless they say that there was a mount.
    let mut mounted = names.superblocks == 4;
    for copy in 0..4 {
        let file = match env.disk.open(&super::superblock::name(copy), Open::Existing).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let name = super::superblock::name(copy);
                return Err(io_error(folder, &name, "open it")(error));
            }
        };
        let name = super::superblock::name(copy);
        let bytes = file.read_at(0, BLOCK).await.map_err(io_error(folder, &name, "read it"))?;
        mounted |= !matches!(Superblock::decode(&bytes, copy), Ok(found) if found.mount_seq == 0);
    }
    Ok(!mounted)
}

async fn create_storage(env: &Env, config: &Config) -> io::Result<()> {
    let mut storage = StorageUuid(env.entropy.draw());
    if planted!("PB-L14") {
        storage = StorageUuid(u128::from(config.node.0) + 1); // A blank disk passes for the one before.
    }
    let content = Superblock {
        cluster: config.cluster.unwrap_or_else(|| env.entropy.draw()),
        node: config.node,
        storage,
        sequence: 1,
        mount_seq: 0,
        head: 0,
        prepared: 0,
        clean: 0,
        limbo_from: 0,
        limbo_over: 0,
    };
    Copies::create(&env.disk, content).await
}

fn is_ours(folder: &str, found: &Superblock, config: &Config) -> Result<(), StartError> {
    let other = |found: String, expected: String| {
        let folder = folder.to_owned();
        Err(StartError::OtherOwner { folder, found, expected })
    };
    if found.node != config.node {
        return other(format!("node {}", found.node), format!("node {}", config.node));
    }
    match config.cluster {
        Some(cluster) if cluster != found.cluster => {
            other(format!("cluster {:032x}", found.cluster), format!("cluster {cluster:032x}"))
        }
        _ => Ok(()),
    }
}

/// Opens the files in use, in order, and makes sure that none is missing.
async fn open_files(
    env: &Env,
    folder: &str,
    names: &Names,
    superblock: &Superblock,
) -> Result<Vec<Arc<LogFile>>, StartError> {
    let missing = |file: String| StartError::Missing { folder: folder.to_owned(), file };
    let first = if superblock.head == 0 { names.in_use.first() } else { Some(&superblock.head) };
    let Some(first) = first else { return Ok(Vec::new()) };
    let newest = names.in_use.last().copied().unwrap_or(0);
    let mut logs = Vec::new();
    for number in *first..=newest.max(*first) {
        if !names.in_use.contains(&number) {
            return Err(missing(in_use_name(number)));
        }
        logs.push(Arc::new(open_file(env, folder, number, superblock.storage).await?));
    }
    for number in newest + 1..=superblock.prepared {
        if !names.prepared.contains(&number) {
            return Err(missing(in_use_name(number)));
        }
    }
    Ok(logs)
}

pub(super) async fn open_file(
    env: &Env,
    folder: &str,
    number: u64,
    storage: StorageUuid,
) -> Result<LogFile, StartError> {
    let name = in_use_name(number);
    let file = env.disk.open(&name, Open::Existing).await;
    let file = file.map_err(io_error(folder, &name, "open it"))?;
    let size = file.size().await.map_err(io_error(folder, &name, "find its length"))?;
    let block = file.read_at(0, BLOCK).await.map_err(io_error(folder, &name, "read it"))?;
    let (folder, file_name) = (folder.to_owned(), name);
    let header = match FileHeader::decode(&block) {
        Ok(header) => header,
        Err(BlockFlaw::Version(found)) => {
            let (file, known) = (file_name, VERSION);
            return Err(StartError::Version { folder, file, found, known });
        }
        Err(BlockFlaw::Damaged(what)) => {
            let what = format!("its header: {what}");
            return Err(StartError::Damaged { folder, file: file_name, offset: 0, what });
        }
    };
    if header.storage != storage {
        let (file, found) = (file_name, header.storage);
        return Err(StartError::OtherStorage { folder, file, found, expected: storage });
    }
    if header.number != number {
        let what = format!("its header says that it is {}", in_use_name(header.number));
        return Err(StartError::Damaged { folder, file: file_name, offset: 0, what });
    }
    if size < header.size {
        let what = format!("it ends there, but should have {} bytes", header.size);
        return Err(StartError::Damaged { folder, file: file_name, offset: size, what });
    }
    Ok(LogFile { header, file })
}

fn core_of(env: Env, config: Config, superblock: Copies, names: &Names, folder: String) -> Core {
    let content = *superblock.content();
    let newest = names.in_use.last().copied().unwrap_or(0);
    let pool = Pool {
        newest: newest.max(content.prepared),
        next_spare: names.spares.last().copied().unwrap_or(0),
        reserve: config.reserve,
        ..Pool::default()
    };
    Core {
        nonce: ((env.entropy.draw() >> 64) as u64).max(1),
        env,
        config,
        folder,
        storage: content.storage,
        mount_seq: content.mount_seq,
        superblock: tokio::sync::Mutex::new(superblock),
        state: Mutex::new(State { pool, ..State::default() }),
        work: Notify::new(),
        chores: Notify::new(),
        urgent: false.into(),
        progress: watch::channel(StorageProgress::default()).0,
        ended: watch::channel(false).0,
        fronts: Mutex::default(),
        limbo: content.in_limbo().into(),
    }
}

/// Collects the files that are not in use: spares, and those that have been freed or never put to use. Returns the
/// next file, if one was prepared.
///
/// A file that the superblock calls prepared keeps its number: the numbers of the log have no gaps. There are two if
/// the last process was about to put one to use and had the next prepared already.
async fn collect(core: &Core, names: &Names) -> io::Result<Option<LogFile>> {
    let disk = &*core.env.disk;
    let (head, prepared) = {
        let superblock = core.superblock.lock().await;
        (superblock.content().head, superblock.content().prepared)
    };
    let newest = names.in_use.last().copied().unwrap_or(0);
    let mut spares = Vec::new();
    for number in &names.spares {
        spares.push(Spare::open(disk, *number).await?);
    }
    let freed = names.in_use.iter().filter(|number| **number < head);
    let freed = freed.map(|number| in_use_name(*number));
    let keeps = |number: u64| number == newest + 1 || (newest + 1..=prepared).contains(&number);
    let unused = names.prepared.iter().filter(|number| !keeps(**number));
    let unused = unused.map(|number| prepared_name(*number));
    for name in freed.chain(unused) {
        let number = {
            let mut state = core.lock();
            state.pool.next_spare += 1;
            state.pool.next_spare
        };
        spares.push(retire(disk, &name, number).await?);
    }
    let mut kept = Vec::new();
    let there = |number: &u64| names.prepared.contains(number);
    for number in (newest + 1..=prepared).filter(there) {
        kept.extend(open_file_named(core, number).await?);
    }
    let mut kept = kept.into_iter();
    let first = kept.next();
    let mut state = core.lock();
    state.pool.spares = spares;
    if let Some(second) = kept.next() {
        probe!("engine: two prepared files");
        let class = state.pool.class();
        state.pool.next = Some((Arc::new(second), class));
    }
    Ok(first)
}

/// The prepared file `number`, if its header is sound: a damaged one is only a waste of space.
async fn open_file_named(core: &Core, number: u64) -> io::Result<Option<LogFile>> {
    let file = core.env.disk.open(&prepared_name(number), Open::Existing).await?;
    let size = file.size().await?;
    let found = FileHeader::decode(&file.read_at(0, BLOCK).await?).ok();
    let usable = |header: &FileHeader| {
        (header.storage, header.number) == (core.storage, number) && header.size <= size
    };
    let incarnation = (core.env.entropy.draw() >> 64) as u64;
    let found = found.filter(usable);
    let size = renewed(&*file, found.map_or(size, |header| header.size)).await?;
    let header = match found {
        Some(header) => FileHeader { size, ..header },
        None => FileHeader { storage: core.storage, incarnation, number, size },
    };
    file.write_and_sync(0, vec![header.encode()]).await?;
    Ok(Some(LogFile { header, file }))
}

/// A file for the START batch of `need` bytes, put to use, and what may use the rest of it.
async fn first_file(core: &Core, next: Option<LogFile>, need: u64) -> io::Result<(LogFile, Class)> {
    let is_tight = is_tight(core, next.is_some()).await?;
    let extra = if next.is_none() { core.lock().pool.take_extra() } else { None };
    let (log, class) = match (next, extra) {
        (Some(log), _) => (enlarged(log, need).await?, Class::Normal),
        (None, None) if is_tight => {
            (prepared(core, small(core, need).await?, need).await?, Class::Exempt)
        }
        (None, extra) => {
            (prepared(core, any(core, extra, need).await?, need).await?, Class::Normal)
        }
    };
    activate(&*core.env.disk, log.number()).await?;
    Ok((log, class))
}

/// True if there is not even room for the reserve and one file. That is noted, so that appends wait from the begin.
async fn is_tight(core: &Core, has_next: bool) -> io::Result<bool> {
    let free = core.env.disk.space().await?.free;
    let mut state = core.lock();
    let mut sizes: Vec<u64> = state.pool.spares.iter().map(|spare| spare.size).collect();
    sizes.sort_unstable();
    let lacking = |size: Option<u64>| core.config.reserve.saturating_sub(size.unwrap_or(0));
    let lacking: u64 = (0..RESERVES).map(|_| lacking(sizes.pop())).sum();
    let has_file = has_next || !sizes.is_empty();
    let first = if has_file { 0 } else { core.config.file_first };
    let is_tight = free < lacking + first;
    if is_tight {
        let reason = format!("the disk of {} is full ({free} bytes are free)", core.folder);
        tracing::warn!(reason, "appends are held");
        state.pool.full = Some(Arc::from(reason));
    }
    Ok(is_tight)
}

/// A small file on a full disk, so that many starts in a row do not use the reserve up.
async fn small(core: &Core, need: u64) -> io::Result<Spare> {
    probe!("engine: started on a full disk");
    let config = &core.config;
    let room = (config.reserve / 32).clamp(2 * BLOCK as u64, START_ROOM);
    let size = (need + room).next_multiple_of(BLOCK as u64);
    let scrap = core.lock().pool.take_scrap(need);
    if let Some(scrap) = scrap {
        return Ok(scrap);
    }
    if core.env.disk.space().await?.free < size {
        let part = core.lock().pool.take_reserve(size + config.reserve / 2);
        if let Some(mut part) = part {
            if part.size < size + config.reserve / 2 {
                return Ok(part);
            }
            let outcome = part.cut((part.size - size) / BLOCK as u64 * BLOCK as u64).await;
            core.lock().pool.spares.push(part);
            outcome?;
        }
    }
    new_spare(core, size, pace(core)).await
}

/// The spare `extra`, one of the reserve, or a new one.
async fn any(core: &Core, extra: Option<Spare>, need: u64) -> io::Result<Spare> {
    let spare = extra.or_else(|| core.lock().pool.take_reserve(need));
    match spare {
        Some(spare) => Ok(spare),
        None => new_spare(core, core.config.file_first, pace(core)).await,
    }
}

fn pace(core: &Core) -> Pace<'_> {
    Pace { step: core.config.allocate_step, pause: Duration::ZERO, urgent: &core.urgent }
}

async fn enlarged(mut log: LogFile, need: u64) -> io::Result<LogFile> {
    if log.header.size < need {
        let size = need.next_multiple_of(BLOCK as u64);
        log.file.allocate(size).await?;
        log.header.size = size;
        log.file.write_and_sync(0, vec![log.header.encode()]).await?;
    }
    Ok(log)
}

/// `spare` with at least `need` bytes, prepared for the next place.
async fn prepared(core: &Core, mut spare: Spare, need: u64) -> io::Result<LogFile> {
    let number = {
        let mut state = core.lock();
        state.pool.newest += 1;
        state.pool.newest
    };
    spare.grow(&*core.env.clock, need, pace(core)).await?;
    prepare(core, spare, number).await
}

/// Step 5: START with everything that must be written again, durable together with all that was read.
async fn start(
    env: Env,
    config: Config,
    superblock: Copies,
    (logs, names): (Vec<Arc<LogFile>>, Names),
    scanned: Scanned,
    vouched: Vouched,
) -> Result<Mounted, StartError> {
    let folder = env.disk.describe();
    let core = core_of(env, config, superblock, &names, folder.clone());
    let seq = scanned.start_seq(core.mount_seq);
    let Scanned { facts, index, again, damaged, .. } = scanned;
    let record = Record::Start(Start {
        mount_seq: core.mount_seq,
        nonce: core.nonce,
        prev_nonce: scanned.nonce,
        last_valid_seq: scanned.last_seq,
        cut_file: scanned.cut_file,
        cut_offset: scanned.cut_offset,
    });
    let mut records: Vec<Placed> = vec![(None, record)];
    records.extend(again);
    records.extend(vouched.frames.into_iter().map(|frame| (None, Record::Frame(frame))));
    let bytes = records.iter().map(|(_, record)| record.len_bound() as u64).sum::<u64>();
    let need = bytes + BATCH_OVERHEAD + FIRST_BATCH + BLOCK as u64;
    let next = collect(&core, &names).await.map_err(io_error(&folder, "", "sort its files"))?;
    let (log, class) = match first_file(&core, next, need).await {
        Ok((log, class)) => (Arc::new(log), class),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            return Err(StartError::Full { folder, need });
        }
        Err(error) => return Err(io_error(&folder, "", "begin a file in it")(error)),
    };
    let name = in_use_name(log.number());
    let chain = Chain {
        nonce: core.nonce,
        seq,
        prev_crc: scanned.last_crc,
        durable_upto: scanned.last_seq,
    };
    sync_all(&folder, &logs).await?;
    let encoded = encode(&place(&log, FIRST_BATCH), &chain, &records);
    let written = if planted!("PB-D12") {
        log.file.write_at(FIRST_BATCH, encoded.chunks).await
    } else {
        log.file.write_and_sync(FIRST_BATCH, encoded.chunks).await
    };
    written.map_err(io_error(&folder, &name, "write it"))?;
    let head = logs.first().map_or(log.number(), |log| log.number());
    begin_log(&core, head).await.map_err(io_error(&folder, "", "write a superblock of it"))?;
    let mut state = core.lock();
    (state.facts, state.index, state.damaged) = (facts, index, damaged);
    state.logs = logs.into_iter().map(|log| (log.number(), log)).collect();
    state.logs.insert(log.number(), log.clone());
    state.active = log.number();
    take_in(&mut state, &log, &records);
    state.check();
    let mut recovered = state.facts.recovered(core.limbo.load(Ordering::Acquire));
    recovered.damages = scanned.damages;
    recovered.limbo_upto = vouched.epochs;
    drop(state);
    if !recovered.damages.is_empty() {
        probe!("engine: started with damage");
    }
    let core = Arc::new(core);
    let offset = FIRST_BATCH + encoded.len;
    let writer = Writer::new(core.clone(), (log, class), offset, seq, encoded.crc);
    Ok(Mounted { core, writer, recovered })
}

/// Notes the first file of the first mount.
async fn begin_log(core: &Core, head: u64) -> io::Result<()> {
    let mut superblock = core.superblock.lock().await;
    if superblock.content().head > 0 {
        return Ok(());
    }
    superblock.change(|content| content.head = head).await
}

/// Makes all that was read durable: until then it may be in the operating system's memory only.
async fn sync_all(folder: &str, logs: &[Arc<LogFile>]) -> Result<(), StartError> {
    if planted!("PB-D12") {
        return Ok(());
    }
    for log in logs {
        let name = in_use_name(log.number());
        log.file.sync().await.map_err(io_error(folder, &name, "sync it"))?;
    }
    Ok(())
}

/// Takes in the frames that were written again with START.
fn take_in(state: &mut State, log: &LogFile, records: &[Placed]) {
    for (at, (_, record)) in records.iter().enumerate() {
        let Record::Frame(frame) = record else { continue };
        state.facts.apply(frame, log.number());
        if let Frame::Entry(entry) | Frame::Repair { entry, .. } = frame {
            let number = u32::try_from(at).expect("bounded by the batch");
            let here = Spot { file: log.number(), offset: FIRST_BATCH, slot: number };
            state.index.insert(entry.ledger, entry.entry, here, record.len_bound() as u64);
        }
        if let Frame::Trim { container, keep_from } = frame {
            state.index.trim(*container, *keep_from);
        }
    }
}
