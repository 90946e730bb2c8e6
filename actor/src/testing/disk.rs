//! What a [`Disk`] must do while nothing fails.

use crate::disk::{Disk, File, Open};
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Runs every check of the disk seam. `disk` MUST be empty; it is left empty.
///
/// # Panics
/// If a promise of the seam is broken.
pub async fn check_disk(disk: Arc<dyn Disk>) {
    let names = disk.list().await.expect("an empty folder can be listed");
    assert!(names.is_empty(), "the folder is empty at the start, not {names:?}");
    check_open(&*disk).await;
    check_reads_and_writes(&*disk).await;
    check_lengths(&*disk).await;
    check_names(&*disk).await;
    check_open_handles_outlive_their_name(&*disk).await;
    check_writes_in_flight_together(&*disk).await;
    check_space(&*disk).await;
    let names = disk.list().await.expect("a folder can be listed");
    assert!(names.is_empty(), "the suite leaves nothing behind, not {names:?}");
}

async fn fresh(disk: &dyn Disk, name: &str) -> Arc<dyn File> {
    disk.open(name, Open::New).await.expect("a new name can be created")
}

async fn remove(disk: &dyn Disk, name: &str) {
    disk.remove(name).await.expect("a file can be removed");
    disk.sync_dir().await.expect("the folder can be synced");
}

/// `expect_err`, for values that have no `Debug`.
fn refused<T>(result: io::Result<T>, what: &str) -> ErrorKind {
    match result {
        Ok(_) => panic!("{what}, but it succeeded"),
        Err(error) => error.kind(),
    }
}

async fn check_open(disk: &dyn Disk) {
    let missing = refused(disk.open("a", Open::Existing).await, "a missing file is not opened");
    assert_eq!(missing, ErrorKind::NotFound, "a missing file is reported as such");
    let file = fresh(disk, "a").await;
    assert_eq!(file.size().await.expect("size"), 0, "a new file is empty");
    let twice = refused(disk.open("a", Open::New).await, "a name in use is not created again");
    assert_eq!(twice, ErrorKind::AlreadyExists, "a name in use is reported as such");
    file.write_at(0, vec![Bytes::from_static(b"kept")]).await.expect("write");
    for how in [Open::Existing, Open::Either] {
        let again = disk.open("a", how).await.expect("an existing file opens");
        let read = again.read_at(0, 4).await.expect("read");
        assert_eq!(read, "kept", "opening keeps the content, and sees what another handle wrote");
    }
    remove(disk, "a").await;
    let either = disk.open("a", Open::Either).await.expect("a missing file is created");
    assert_eq!(either.size().await.expect("size"), 0, "a name that was removed starts empty");
    remove(disk, "a").await;
}

async fn check_reads_and_writes(disk: &dyn Disk) {
    let file = fresh(disk, "b").await;
    assert_eq!(file.read_at(0, 10).await.expect("read"), "", "an empty file has no bytes");
    let chunks = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"two")];
    file.write_at(0, chunks).await.expect("write");
    assert_eq!(
        file.read_at(0, 6).await.expect("read"),
        "onetwo",
        "chunks lie one behind the other"
    );
    assert_eq!(file.read_at(2, 2).await.expect("read"), "et", "a read starts where it is told to");
    assert_eq!(file.read_at(4, 10).await.expect("read"), "wo", "fewer bytes only at the end");
    assert_eq!(file.read_at(6, 10).await.expect("read"), "", "no bytes at the end");
    assert_eq!(file.read_at(600, 10).await.expect("read"), "", "no bytes behind the end");
    file.write_at(1, vec![Bytes::from_static(b"NE")]).await.expect("write");
    assert_eq!(
        file.read_at(0, 6).await.expect("read"),
        "oNEtwo",
        "a write replaces what was there"
    );
    file.write_at(10_000, vec![Bytes::from_static(b"far")]).await.expect("write behind the end");
    assert_eq!(file.size().await.expect("size"), 10_003, "a write grows the file");
    let gap = file.read_at(6, 9_994).await.expect("read");
    assert!(gap.len() == 9_994 && gap.iter().all(|byte| *byte == 0), "a gap reads as zeros");
    file.sync().await.expect("sync");
    file.write_and_sync(3, vec![Bytes::from_static(b"TWO")]).await.expect("write and sync");
    assert_eq!(file.read_at(0, 6).await.expect("read"), "oNETWO", "write_and_sync writes");

    let large: Vec<u8> = (0..1_000_003_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
    let large = Bytes::from(large);
    let chunks = (0..large.len()).step_by(777).map(|at| {
        large.slice(at..large.len().min(at + 777)) // More chunks than one system call takes.
    });
    file.write_and_sync(77, chunks.collect()).await.expect("a large write");
    let read = file.read_at(77, large.len()).await.expect("a large read");
    assert!(read == large, "a large write comes back whole");
    remove(disk, "b").await;
}

async fn check_lengths(disk: &dyn Disk) {
    let file = fresh(disk, "c").await;
    file.write_at(0, vec![Bytes::from_static(b"0123456789")]).await.expect("write");
    file.allocate(5).await.expect("allocate less than there is");
    assert_eq!(file.size().await.expect("size"), 10, "allocate never shortens");
    file.allocate(70_000).await.expect("allocate");
    assert_eq!(file.size().await.expect("size"), 70_000, "allocate grows to the length asked for");
    let read = file.read_at(0, 70_000).await.expect("read");
    assert_eq!(read.slice(..10), "0123456789", "allocate keeps what is there");
    assert!(read.len() == 70_000 && read[10..].iter().all(|byte| *byte == 0), "the rest is zeros");
    file.set_len(4).await.expect("cut");
    assert_eq!(file.read_at(0, 10).await.expect("read"), "0123", "set_len cuts");
    file.set_len(8).await.expect("grow");
    assert_eq!(file.read_at(0, 10).await.expect("read"), "0123\0\0\0\0", "what was cut is gone");
    file.sync().await.expect("sync");
    remove(disk, "c").await;
}

async fn check_names(disk: &dyn Disk) {
    for name in ["n2", "n10", "n1"] {
        let file = fresh(disk, name).await;
        file.write_and_sync(0, vec![Bytes::from(name.to_owned())]).await.expect("write");
    }
    let names = disk.list().await.expect("list");
    assert_eq!(names, ["n1", "n10", "n2"], "all names, sorted");
    disk.rename("n1", "n2").await.expect("rename onto a name in use");
    disk.rename("n10", "n3").await.expect("rename");
    disk.sync_dir().await.expect("sync_dir");
    assert_eq!(disk.list().await.expect("list"), ["n2", "n3"], "a rename moves the name");
    let file = disk.open("n2", Open::Existing).await.expect("open");
    assert_eq!(file.read_at(0, 9).await.expect("read"), "n1", "a rename moves the content");
    let missing = refused(disk.rename("n1", "n4").await, "a missing name is not renamed");
    assert_eq!(missing, ErrorKind::NotFound, "a missing name is reported as such");
    let missing = refused(disk.remove("n1").await, "a missing name is not removed");
    assert_eq!(missing, ErrorKind::NotFound, "a missing name is reported as such");
    remove(disk, "n2").await;
    remove(disk, "n3").await;
}

async fn check_open_handles_outlive_their_name(disk: &dyn Disk) {
    let file = fresh(disk, "d").await;
    file.write_at(0, vec![Bytes::from_static(b"old")]).await.expect("write");
    disk.remove("d").await.expect("remove");
    let new = fresh(disk, "d").await;
    new.write_at(0, vec![Bytes::from_static(b"new")]).await.expect("write");
    file.write_at(3, vec![Bytes::from_static(b"er")]).await.expect("a removed file takes writes");
    file.sync().await.expect("a removed file can be synced");
    assert_eq!(file.read_at(0, 9).await.expect("read"), "older", "the old handle has the old file");
    assert_eq!(new.read_at(0, 9).await.expect("read"), "new", "the new one has the new");
    remove(disk, "d").await;
}

async fn check_writes_in_flight_together(disk: &dyn Disk) {
    let file = fresh(disk, "e").await;
    let mut first = file.write_at(0, vec![Bytes::from(vec![1; 5_000])]);
    let mut second = file.write_at(5_000, vec![Bytes::from(vec![2; 5_000])]);
    // Both are started before either is waited for.
    let started = std::future::poll_fn(|context| {
        let first = first.as_mut().poll(context);
        std::task::Poll::Ready((first, second.as_mut().poll(context)))
    });
    let (done, done_too) = started.await;
    if done_too.is_pending() {
        second.await.expect("write");
    }
    if done.is_pending() {
        first.await.expect("write");
    }
    file.sync().await.expect("sync");
    let read = file.read_at(0, 10_000).await.expect("read");
    let (left, right) = read.split_at(5_000);
    let whole = left.iter().all(|byte| *byte == 1) && right.iter().all(|byte| *byte == 2);
    assert!(read.len() == 10_000 && whole, "writes in flight together all land");
    remove(disk, "e").await;
}

async fn check_space(disk: &dyn Disk) {
    let space = disk.space().await.expect("space");
    assert!(space.free <= space.total && space.total > 0, "free space is part of the whole");
    assert!(!disk.describe().is_empty(), "the folder has a name for people");
}
