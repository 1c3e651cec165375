use std::cell::Cell;
use std::rc::Rc;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::source::testing::{self, Fixture, Kind};

fn envelope() -> Envelope {
    Envelope::new("XyZ", "movie.mp4", None)
}

fn body<S: Source>(source: S, extent: Extent) -> (ChunkBody<S>, Arc<AtomicU64>) {
    let read_bytes = Arc::new(AtomicU64::new(0));
    (ChunkBody::new(&envelope(), source, extent, Arc::clone(&read_bytes)), read_bytes)
}

/// All of the body, letting go of each block as a connection does: there are fewer buffers than blocks.
async fn drain<S: Source + Unpin>(mut body: ChunkBody<S>) -> Vec<u8> {
    let mut drained = Vec::new();
    while let Some(frame) = body.frame().await {
        drained.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    drained
}

/// A source whose blocks take a turn each, and whose block at `fails_at` is wrong.
#[derive(Clone)]
struct Slow {
    in_flight: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
    fails_at: u64,
    wrong: fn(Extent) -> BlockResult,
}

impl Slow {
    fn failing(fails_at: u64, wrong: fn(Extent) -> BlockResult) -> Slow {
        Slow { in_flight: Rc::default(), most: Rc::default(), fails_at, wrong }
    }
}

impl Source for Slow {
    fn read_now(&self, _: Extent) -> Option<BlockResult> {
        None
    }

    fn read(&self, extent: Extent) -> impl Future<Output = BlockResult> + use<> {
        let source = self.clone();
        async move {
            source.in_flight.set(source.in_flight.get() + 1);
            source.most.set(source.most.get().max(source.in_flight.get()));
            // Later blocks are ready earlier.
            for _ in 0..(100 - extent.offset() / 10) {
                tokio::task::yield_now().await;
            }
            source.in_flight.set(source.in_flight.get() - 1);
            if extent.offset() == source.fails_at {
                (source.wrong)(extent)
            } else {
                Ok(vec![extent.offset() as u8; extent.len() as usize].into())
            }
        }
    }

    fn block_bytes(&self) -> u64 {
        10
    }

    fn depth(&self) -> usize {
        3
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn every_source_gives_the_same_body() {
    for kind in Kind::ALL {
        let (len, extent) = (3_000_000, Extent::new(1_000, 2_500_001));
        testing::with(kind, len, move |Fixture { source, content, .. }| async move {
            let (body, read_bytes) = body(source, extent);
            let announced = body.size_hint().exact();
            let collected = drain(body).await;
            let content = &content[extent.offset() as usize..extent.end() as usize];
            assert!(collected == [envelope().head(), content, envelope().tail()].concat(), "{kind:?}");
            assert_eq!(announced, Some(collected.len() as u64));
            assert_eq!(read_bytes.load(Ordering::Relaxed), extent.len());
        });
    }
}

#[test]
fn the_end_of_the_envelope_waits_until_the_digest_of_the_chunk_is_written_down() {
    for kind in Kind::ALL {
        let (len, extent) = (3_000_000, Extent::new(1_000, 2_500_001));
        testing::with(kind, len, move |Fixture { source, content, .. }| async move {
            let reported = Rc::<Cell<Option<ChunkDigest>>>::default();
            let (report, (write, written)) = (Rc::clone(&reported), oneshot::channel());
            let mut body = body(source, extent).0.with_digest(move |digest| {
                report.set(Some(digest));
                written
            });
            let mut frames = 0;
            while body.size_hint().exact() > Some(envelope().tail().len() as u64) {
                assert!(reported.get().is_none(), "{kind:?}");
                body.frame().await.unwrap().unwrap();
                frames += 1;
            }
            assert!(reported.get().is_some() && frames > 1, "{kind:?}");
            assert!(body.frame().now_or_never().is_none(), "{kind:?}");
            let digest = reported.get().unwrap();
            write.send(()).unwrap();
            body.frame().await.unwrap().unwrap();
            let mut digester = ChunkDigester::new();
            digester.update(&content[extent.offset() as usize..extent.end() as usize]);
            assert_eq!(digest, digester.finish(), "{kind:?}");
        });
    }
}

#[test]
fn a_request_never_ends_if_the_upload_ended_before_it_recorded_the_digest() {
    let mut body = body(Slow::failing(u64::MAX, |_| unreachable!()), Extent::new(0, 95)).0;
    body = body.with_digest(|_| oneshot::channel().1);
    let tail = envelope().tail().len() as u64;
    block_on(async {
        while body.size_hint().exact() > Some(tail) {
            body.frame().await.unwrap().unwrap();
        }
    });
    assert!(body.frame().now_or_never().is_none());
    assert!(body.frame().now_or_never().is_none());
}

#[test]
fn a_chunk_that_ends_with_an_error_has_no_digest() {
    let reported = Rc::new(Cell::new(false));
    let report = Rc::clone(&reported);
    let broken = Slow::failing(20, |_| Err(SourceError::EmptyPipe { name: "-".into() }));
    let mut body = body(broken, Extent::new(0, 95)).0.with_digest(move |_| {
        report.set(true);
        oneshot::channel().1
    });
    block_on(async { while body.frame().await.is_some() {} });
    assert!(!reported.get());
}

#[test]
fn the_size_hint_is_exact_after_every_frame() {
    let (mut body, _) = body(Slow::failing(u64::MAX, |_| unreachable!()), Extent::new(0, 95));
    let mut left = envelope().content_length(95);
    block_on(async {
        while let Some(frame) = body.frame().await {
            assert!(left > 0 && frame.is_ok());
            left -= frame.unwrap().into_data().unwrap().len() as u64;
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left), left == 0));
        }
    });
    assert_eq!(left, 0);
}

#[test]
fn reads_overlap_up_to_the_depth_and_blocks_stay_in_order() {
    let source = Slow::failing(u64::MAX, |_| unreachable!());
    let (body, _) = body(source.clone(), Extent::new(0, 95));
    let collected = block_on(body.collect()).unwrap().to_bytes();
    let file = &collected[envelope().head().len()..][..95];
    assert!(file.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 10 * 10));
    assert_eq!(source.most.get(), 3);
}

#[test]
fn while_every_block_is_in_use_a_body_asks_for_one_at_a_time() {
    for kind in [Kind::Direct, Kind::PreadCold] {
        testing::with(kind, 3_000_000, move |Fixture { source, pool, .. }| async move {
            assert!(source.depth() > 1, "{kind:?}");
            let (mut first, _) = body(source.clone(), Extent::new(0, 1_500_000));
            let (mut second, _) = body(source, Extent::new(1_500_000, 1_500_000));
            let (_head, sent) = (first.frame().await, first.frame().await);
            assert_eq!(pool.free(), 0, "{kind:?}");
            let _head = second.frame().await;
            assert!(second.frame().now_or_never().is_none(), "{kind:?}");
            drop(sent);
            let sent_by_both = (second.frame().await, first.frame().await);
            assert!(sent_by_both.0.is_some() && sent_by_both.1.is_some(), "{kind:?}");
            drop(sent_by_both);
            // The first body has read one of the three blocks ahead. Neither body waits for one of the other two.
            let free = [pool.acquire().now_or_never(), pool.acquire().now_or_never()];
            assert!(free.iter().all(Option::is_some), "{kind:?}");
        });
    }
}

#[test]
fn an_error_ends_the_body_without_its_tail() {
    let wrongs: [fn(Extent) -> BlockResult; 3] = [
        |_| Err(SourceError::EmptyPipe { name: "-".into() }),
        |extent| Ok(vec![0; extent.len() as usize - 1].into()),
        |extent| Ok(vec![0; extent.len() as usize + 1].into()),
    ];
    for wrong in wrongs {
        let (mut body, read_bytes) = body(Slow::failing(20, wrong), Extent::new(0, 95));
        block_on(async {
            for _ in 0..3 {
                body.frame().await.unwrap().unwrap();
            }
            body.frame().await.unwrap().unwrap_err();
            assert!(body.frame().await.is_none() && body.is_end_stream());
        });
        assert_eq!(read_bytes.load(Ordering::Relaxed), 20);
    }
}

#[test]
fn an_empty_chunk_is_its_envelope() {
    let (body, _) = body(Slow::failing(u64::MAX, |_| unreachable!()), Extent::new(7, 0));
    let collected = body.collect().now_or_never().unwrap().unwrap().to_bytes();
    assert_eq!(collected, [&envelope().head()[..], envelope().tail()].concat());
}

#[test]
fn mapped_and_held_blocks_are_ready_at_once() {
    for kind in [Kind::Mmap, Kind::Held] {
        testing::with(kind, 3_000_000, move |Fixture { source, .. }| async move {
            let (body, _) = body(source, Extent::new(0, 3_000_000));
            assert!(body.collect().now_or_never().is_some(), "{kind:?}");
        });
    }
}

#[test]
fn hyper_sends_it_over_a_real_connection() {
    for kind in Kind::ALL {
        testing::with(kind, 3_000_000, move |Fixture { source, content, .. }| async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let receiving = tokio::task::spawn_local(receive(listener.accept().await.unwrap().0));
            let (mut sender, connection) = handshake(TokioIo::new(socket)).await.unwrap();
            let driving = tokio::task::spawn_local(connection);
            let (body, _) = body(source, Extent::new(0, 3_000_000));
            let request = hyper::Request::post("/").body(body).unwrap();
            assert!(sender.send_request(request).await.unwrap().status().is_success());
            drop(sender);
            driving.await.unwrap().unwrap();
            let received = receiving.await.unwrap();
            assert!(received == [envelope().head(), &content[..], envelope().tail()].concat(), "{kind:?}");
        });
    }
}

/// The body of the one request on a connection, which is then answered.
async fn receive(mut socket: tokio::net::TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    while !received.ends_with(envelope().tail()) {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0);
    }
    socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
    let head_len = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    received.split_off(head_len)
}

#[test]
fn a_map_that_breaks_while_it_is_read_never_gets_its_tail() {
    testing::with(Kind::MmapTls, 3_000_000, |Fixture { source, file, .. }| async move {
        let (mut body, _) = body(source, Extent::new(0, 3_000_000));
        body.frame().await.unwrap().unwrap();
        let mut blocks = Vec::new();
        while let Some(frame) = body.frame().now_or_never() {
            blocks.push(frame.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(blocks.iter().map(Bytes::len).sum::<usize>(), 3_000_000);
        file.set_len(0).unwrap();
        assert!(blocks.pop().unwrap().iter().all(|byte| *byte == 0));
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, SourceError::Changed { .. }), "{error}");
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn a_body_dropped_half_way_gives_its_memory_back() {
    for kind in [Kind::Uring, Kind::Direct, Kind::Pread] {
        testing::with(kind, 3_000_000, move |Fixture { source, pool, .. }| async move {
            let (mut body, _) = body(source, Extent::new(0, 3_000_000));
            body.frame().await.unwrap().unwrap();
            body.frame().await.unwrap().unwrap();
            drop(body);
            testing::all_free(&pool).await;
        });
    }
}
