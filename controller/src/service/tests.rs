use super::*;
use crate::rpc::tests::World;
use std::collections::BTreeSet;
use thalweg_actor::BoxFuture;
use thalweg_wire::controller::{Request, Response, decode_response, encode_request};

struct Incoming(mpsc::Receiver<Bytes>);

impl ByteReader for Incoming {
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            let bytes = self.0.recv().await.unwrap_or_default();
            into.extend_from_slice(&bytes);
            Ok(bytes.len())
        })
    }
}

struct Outgoing(mpsc::UnboundedSender<Bytes>);

impl ByteWriter for Outgoing {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        for chunk in chunks {
            let _ = self.0.send(chunk);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// An answer and the number of its request.
type Answer = (u64, Result<Response, RpcError>);

/// Sends `chunks`, closes, and gives back how the connection ended and all that was answered.
fn talk(chunks: Vec<Bytes>) -> (Result<(), ServeError>, Vec<Answer>) {
    let world = World::new();
    let controller = world.start();
    let (to_server, incoming) = mpsc::channel(chunks.len().max(1));
    let (outgoing, mut from_server) = mpsc::unbounded_channel();
    for chunk in chunks {
        to_server.try_send(chunk).unwrap();
    }
    drop(to_server);
    let connection = Connection {
        reader: Box::new(Incoming(incoming)),
        writer: Box::new(Outgoing(outgoing)),
        peer: "client:1".into(),
    };
    world.executor.run(async move {
        let ended = serve(controller, connection).await;
        let mut answers = Vec::new();
        while let Some(bytes) = from_server.recv().await {
            let (record, _) = Record::decode(&bytes).unwrap();
            answers.push((record.address, decode_response(&record).unwrap()));
        }
        (ended, answers)
    })
}

#[test]
fn every_request_gets_the_answer_with_its_number_however_the_bytes_are_cut() {
    let scope = |name: &str| Request::CheckScopeExists { scope: name.to_owned() };
    let requests = [scope("_system"), scope("none"), Request::ListScopes { token: String::new() }];
    let all: Vec<u8> = (7..)
        .zip(&requests)
        .flat_map(|(number, request)| encode_request(number, request).unwrap())
        .collect();
    for size in [1, 5, 24, all.len()] {
        let (ended, answers) = talk(all.chunks(size).map(Bytes::copy_from_slice).collect());
        assert!(ended.is_ok(), "{ended:?}");
        let numbers: BTreeSet<u64> = answers.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, BTreeSet::from([7, 8, 9]));
        assert!(answers.contains(&(7, Ok(Response::Exists(true)))));
        assert!(answers.contains(&(8, Ok(Response::Exists(false)))));
    }
}

#[test]
fn garbage_ends_the_connection_and_what_came_before_is_answered() {
    let good = encode_request(1, &Request::GetControllers).unwrap();
    let (ended, answers) = talk(vec![good.clone(), Bytes::from_static(&[7; 64])]);
    assert!(matches!(ended, Err(ServeError::NotARecord { .. })), "{ended:?}");
    assert_eq!(answers.len(), 1);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(talk(vec![flipped.into()]).0, Err(ServeError::NotARecord { .. })));
    assert!(matches!(talk(vec![good.slice(..20)]).0, Err(ServeError::Cut { .. })));
}

#[test]
fn a_response_is_not_a_request() {
    let bytes = encode_answer(1, &Ok(Response::Exists(true)));
    assert!(matches!(talk(vec![bytes]).0, Err(ServeError::NotARequest { .. })));
}
