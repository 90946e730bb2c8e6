use super::*;
use bytes::{Bytes, BytesMut};
use std::path::PathBuf;
use thalweg_actor::disk::Open;
use thalweg_actor::network::Endpoint;

/// A folder of its own that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-os-{name}-{}", std::process::id()));
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn aligned_and_odd_writes_read_back_the_same() {
    let scratch = Scratch::new("writes");
    let folder = file::Folder::open(&scratch.0).unwrap();
    let file = folder.open("a", Open::New).await.unwrap();
    file.allocate(3 << 20).await.unwrap();
    assert_eq!(file.size().await.unwrap(), 3 << 20);
    let big: Vec<u8> = (0..2_097_152_u32).map(|at| (at % 251) as u8).collect();
    let big = Bytes::from(big);
    let chunks = vec![big.slice(..5), big.slice(5..1_500_000), big.slice(1_500_000..)];
    file.write_and_sync(4096, chunks).await.unwrap();
    file.write_at(4099, vec![Bytes::from("odd")]).await.unwrap();
    file.sync().await.unwrap();
    let back = file.read_at(4096, big.len()).await.unwrap();
    assert_eq!(&back[..8], &[0, 1, 2, b'o', b'd', b'd', 6, 7]);
    assert!(back[8..] == big[8..]);
    assert_eq!(file.read_at((3 << 20) - 1, 10).await.unwrap(), Bytes::from_static(&[0]));
    assert_eq!(file.read_at(1 << 30, 10).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_folder_belongs_to_one_owner_and_hides_its_lock() {
    let scratch = Scratch::new("lock");
    let folder = file::Folder::open(&scratch.0).unwrap();
    assert_eq!(folder.list().await.unwrap(), Vec::<String>::new());
    let second = file::Folder::open(&scratch.0).err().unwrap();
    let owner = format!("process {}", std::process::id());
    assert!(second.to_string().contains(&owner), "{second}");
    drop(folder);
    assert!(file::Folder::open(&scratch.0).is_ok());
}

#[tokio::test]
async fn names_that_lead_out_of_the_folder_are_refused() {
    let scratch = Scratch::new("names");
    let folder = file::Folder::open(&scratch.0).unwrap();
    for name in ["", ".", "..", "a/b", "thalweg.lock", "a\0b"] {
        let error = folder.open(name, Open::Either).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[tokio::test]
async fn bytes_cross_a_connection_in_order_and_its_end_is_seen() {
    let env = client_env().unwrap();
    let mut listener = env.network.listen(&Endpoint::from("127.0.0.1:0")).await.unwrap();
    let local = listener.local();
    let mut ours = env.network.connect(&local).await.unwrap();
    let mut theirs = listener.accept().await.unwrap();
    let payload = Bytes::from(vec![7; 3_000_000]);
    env.spawn.spawn(
        "sender",
        Box::pin(async move {
            let chunks = vec![Bytes::from("head"), Bytes::new(), payload, Bytes::from("tail")];
            ours.writer.write(chunks).await.unwrap();
            ours.writer.shutdown().await.unwrap();
            std::future::pending::<()>().await;
        }),
    );
    let mut got = BytesMut::new();
    let mut buffer = BytesMut::with_capacity(1000);
    loop {
        let count = theirs.reader.read(&mut buffer).await.unwrap();
        assert!(count <= 1000, "the spare capacity bounds a read");
        if count == 0 {
            break;
        }
        got.extend_from_slice(&buffer);
        buffer.clear();
    }
    assert_eq!(got.len(), 3_000_008);
    assert!(got.starts_with(b"head\x07") && got.ends_with(b"\x07tail"));
    let taken = env.network.listen(&local).await.err().unwrap();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_sleep_never_ends_early() {
    let clock = clock::SystemClock::default();
    let clock: &dyn thalweg_actor::clock::Clock = &clock;
    let until = clock.now().after(std::time::Duration::from_millis(20));
    clock.sleep_until(until).await;
    assert!(clock.now() >= until);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_disk_keeps_the_promises_of_the_seam() {
    let scratch = Scratch::new("disk-conformance");
    thalweg_actor::testing::check_disk(Arc::new(file::Folder::open(&scratch.0).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_network_keeps_the_promises_of_the_seam() {
    let env = client_env().unwrap();
    thalweg_actor::testing::check_network(&env, &Endpoint::from("127.0.0.1:0")).await;
    thalweg_actor::testing::check_network(&env, &Endpoint::from("[::1]:0")).await;
}

#[tokio::test]
async fn a_claimed_port_is_nobody_elses_and_opens_only_when_it_is_listened_on() {
    let tcp = tcp::Tcp::default();
    let claimed = tcp.claim(&Endpoint::from("127.0.0.1:0")).await.unwrap();
    let env = env(Arc::new(tcp), Arc::new(nodisk::NoDisk)).unwrap();
    let refused = env.network.connect(&claimed).await.err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let mut listener = env.network.listen(&claimed).await.unwrap();
    assert_eq!(listener.local(), claimed);
    env.network.connect(&claimed).await.unwrap();
    listener.accept().await.unwrap();
    let taken = tcp::Tcp::default().claim(&claimed).await.err().unwrap();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}
