//! What a [`Network`](crate::network::Network) must do while nothing fails.

use crate::BoxFuture;
use crate::env::Env;
use crate::network::{ByteReader, Connection, Endpoint, Listener};
use bytes::{Bytes, BytesMut};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a pipe may take in before its writer must wait: more than any window.
const STALL_BYTES: usize = 64 << 20;

/// Runs every check of the network seam. `at` names this host with port 0.
///
/// # Panics
/// If a promise of the seam is broken.
pub async fn check_network(env: &Env, at: &Endpoint) {
    check_listening(env, at).await;
    check_order_and_content(env, at).await;
    check_half_close(env, at).await;
    check_spare_capacity_bounds_a_read(env, at).await;
    check_a_dropped_read_loses_nothing(env, at).await;
    check_backpressure(env, at).await;
    check_a_peer_that_is_gone(env, at).await;
}

/// Runs `future` as an actor of its own; the receiver gets what it returns.
fn start<T: Send + 'static>(env: &Env, future: BoxFuture<'static, T>) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let actor = async move {
        // Nobody is left to tell when this fails: the check has panicked.
        let _ = sender.send(future.await);
    };
    drop(env.spawn.spawn("conformance", Box::pin(actor)));
    receiver
}

async fn sleep(env: &Env, by: Duration) {
    env.clock.sleep_until(env.clock.now().after(by)).await;
}

async fn listen(env: &Env, at: &Endpoint) -> Box<dyn Listener> {
    env.network.listen(at).await.expect("a free port can be listened on")
}

/// Both ends of a fresh connection: the one that connected, the one that was accepted.
async fn pair(env: &Env, at: &Endpoint) -> (Connection, Connection) {
    let mut listener = listen(env, at).await;
    let local = listener.local();
    let accepted = start(env, Box::pin(async move { listener.accept().await }));
    let near = env.network.connect(&local).await.expect("a listener can be connected to");
    let far = accepted.await.expect("the acceptor lives").expect("a connection is accepted");
    (near, far)
}

async fn read_all(reader: &mut dyn ByteReader) -> BytesMut {
    let mut all = BytesMut::new();
    let mut piece = BytesMut::with_capacity(64 << 10);
    while reader.read(&mut piece).await.expect("a healthy connection is read") > 0 {
        all.extend_from_slice(&piece);
        piece.clear();
    }
    all
}

async fn check_listening(env: &Env, at: &Endpoint) {
    let mut listener = listen(env, at).await;
    let local = listener.local();
    assert!(!local.0.ends_with(":0"), "a listener knows its port, not {local}");
    let other = listen(env, at).await;
    assert_ne!(other.local(), local, "port 0 never names a port in use");
    match env.network.listen(&local).await {
        Ok(_) => panic!("two listeners share {local}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "a port in use is reported"),
    }
    let accepted = start(env, Box::pin(async move { listener.accept().await.map(|_| listener) }));
    let near = env.network.connect(&local).await.expect("connect");
    assert!(!near.peer.0.is_empty(), "a connection names its peer");
    let listener = accepted.await.expect("the acceptor lives").expect("accept");
    drop((listener, near));
    sleep(env, Duration::from_millis(50)).await;
    match env.network.connect(&local).await {
        Ok(_) => panic!("{local} accepts connections after its listener was dropped"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "nobody listens on {local}");
        }
    }
}

async fn check_order_and_content(env: &Env, at: &Endpoint) {
    let (near, far) = pair(env, at).await;
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let content = Bytes::from(content);
    let (mut writer, mut reader) = (near.writer, far.reader);
    let sent = content.clone();
    let write = async move {
        let mut at = 0;
        for len in (1..).map(|i: usize| i * 7 % 30_011) {
            let end = sent.len().min(at + len);
            let middle = at + (end - at) / 3;
            let chunks = vec![sent.slice(at..middle), Bytes::new(), sent.slice(middle..end)];
            writer.write(chunks).await.expect("a healthy connection is written");
            at = end;
            if at == sent.len() {
                break;
            }
        }
        writer.shutdown().await.expect("a healthy connection is shut down");
    };
    let written = start(env, Box::pin(write));
    let all = read_all(&mut *reader).await;
    assert!(all == content, "bytes arrive once, whole and in order");
    written.await.expect("the writer lives");
    let mut more = BytesMut::with_capacity(16);
    let end = reader.read(&mut more).await.expect("the end can be read again");
    assert_eq!(end, 0, "the end stays the end");
    drop((near.reader, far.writer));
}

async fn check_half_close(env: &Env, at: &Endpoint) {
    let (mut near, mut far) = pair(env, at).await;
    near.writer.write(vec![Bytes::from_static(b"question")]).await.expect("write");
    near.writer.shutdown().await.expect("shutdown");
    assert_eq!(read_all(&mut *far.reader).await, "question", "what was written precedes the end");
    sleep(env, Duration::from_millis(20)).await;
    far.writer.write(vec![Bytes::from_static(b"answer")]).await.expect("the other half is open");
    far.writer.shutdown().await.expect("shutdown");
    assert_eq!(read_all(&mut *near.reader).await, "answer", "a half is closed, not the whole");
}

async fn check_spare_capacity_bounds_a_read(env: &Env, at: &Endpoint) {
    let (mut near, mut far) = pair(env, at).await;
    near.writer.write(vec![Bytes::from(vec![7; 3_000])]).await.expect("write");
    near.writer.shutdown().await.expect("shutdown");
    let mut into = BytesMut::with_capacity(100);
    into.extend_from_slice(b"abc");
    let mut total = 0;
    loop {
        let (before, spare) = (into.len(), into.capacity() - into.len());
        let read = far.reader.read(&mut into).await.expect("read");
        assert!(read <= spare, "{read} bytes were read into a spare capacity of {spare}");
        assert_eq!(into.len(), before + read, "a read appends what it counts");
        total += read;
        if read == 0 {
            break;
        }
        assert!(into.starts_with(b"abc"), "a read keeps what was there");
        if into.len() > 60 {
            into.truncate(3);
        }
    }
    assert_eq!(total, 3_000, "every byte arrives however small the reads are");
}

async fn check_a_dropped_read_loses_nothing(env: &Env, at: &Endpoint) {
    let (near, mut far) = pair(env, at).await;
    let mut writer = near.writer;
    let slow = env.clone();
    let write = async move {
        for byte in 0..50_u8 {
            writer.write(vec![Bytes::from(vec![byte; 3])]).await.expect("write");
            sleep(&slow, Duration::from_micros(700)).await;
        }
        writer.shutdown().await.expect("shutdown");
    };
    let written = start(env, Box::pin(write));
    let mut all = BytesMut::with_capacity(4_096);
    loop {
        let timeout = sleep(env, Duration::from_micros(400));
        let read = first_of(far.reader.read(&mut all), Box::pin(timeout)).await;
        if matches!(read, Some(Ok(0))) {
            break;
        }
    }
    written.await.expect("the writer lives");
    let expected: Vec<u8> = (0..50_u8).flat_map(|byte| [byte; 3]).collect();
    assert!(all == expected.as_slice(), "reads that were given up lose and double nothing");
}

/// What `wanted` returns, or `None` when `timeout` came first.
async fn first_of<T>(mut wanted: BoxFuture<'_, T>, mut timeout: BoxFuture<'_, ()>) -> Option<T> {
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(value) = wanted.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(value));
        }
        timeout.as_mut().poll(context).map(|()| None)
    })
    .await
}

async fn check_backpressure(env: &Env, at: &Endpoint) {
    let (near, mut far) = pair(env, at).await;
    let mut writer = near.writer;
    let (report, mut stalled) = oneshot::channel();
    let write = async move {
        let chunk = Bytes::from(vec![3; 1 << 20]);
        for _ in 0..STALL_BYTES >> 20 {
            writer.write(vec![chunk.clone()]).await.expect("write");
        }
        let _ = report.send(());
        writer.shutdown().await.expect("shutdown");
    };
    let written = start(env, Box::pin(write));
    sleep(env, Duration::from_millis(300)).await;
    assert!(stalled.try_recv().is_err(), "a writer waits for a peer that does not read");
    let all = read_all(&mut *far.reader).await;
    assert_eq!(all.len(), STALL_BYTES, "what waited arrives when the peer reads");
    written.await.expect("the writer lives");
}

async fn check_a_peer_that_is_gone(env: &Env, at: &Endpoint) {
    let (mut near, far) = pair(env, at).await;
    drop(far);
    let mut into = BytesMut::with_capacity(16);
    match near.reader.read(&mut into).await {
        Ok(read) => assert_eq!(read, 0, "a peer that is gone says nothing"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "a peer that is gone"),
    }
    let mut failed = false;
    for _ in 0..200 {
        let chunk = Bytes::from(vec![1; 100_000]);
        let written =
            first_of(near.writer.write(vec![chunk]), Box::pin(sleep(env, Duration::from_secs(5))));
        match written.await {
            Some(Ok(())) => sleep(env, Duration::from_millis(5)).await,
            Some(Err(_)) => {
                failed = true;
                break;
            }
            None => panic!("a write to a peer that is gone hangs"),
        }
    }
    assert!(failed, "writes to a peer that is gone fail in the end");
}
