//! The STUN server under a flood: it allocates nothing, and what a request costs.
#![cfg(feature = "stun")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use natpipe::stun::{Addresses, Binding, Corner, Limits, Proof, Request, TransactionId};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: each call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

fn server(limits: Limits, now: Instant) -> Binding {
    let addresses = Addresses::two("192.0.2.1:3478".parse().unwrap(), "192.0.2.2:3479".parse().unwrap()).unwrap();
    Binding::new(addresses, limits, [1, 2], now)
}

fn source(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0B00_0000 + n)), 4000)
}

fn requests() -> [Vec<u8>; 4] {
    let (modern, classic) = (TransactionId::modern([7; 12]), TransactionId::classic([7; 16]));
    let bare = |id: TransactionId| [&[0, 1, 0, 0][..], id.as_bytes()].concat();
    let usual = Request::new().encode(modern, &Proof::default()).unwrap();
    let unknown = [&[0, 1, 0, 4][..], modern.as_bytes(), &[0x70, 1, 0, 0]].concat();
    [bare(modern), bare(classic), usual, unknown]
}

/// A hundred bytes that are different each time.
fn noise(seed: &mut u64) -> [u8; 100] {
    let mut bytes = [0; 100];
    for chunk in bytes.chunks_mut(8) {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(*seed ^ *seed >> 29).to_le_bytes()[..chunk.len()]);
    }
    bytes
}

#[test]
fn a_flood_of_requests_and_noise_from_everywhere_costs_no_allocation() {
    let now = Instant::now();
    let mut server = server(Limits::default(), now);
    let (requests, mut out, mut seed) = (requests(), [0; 1500], 1);
    let before = allocations();
    assert!(before > 0, "the counter counts");
    for n in 0..200_000 {
        let now = now + Duration::from_micros(u64::from(n));
        server.handle(now, Corner::PRIMARY, source(n), &requests[n as usize % 4], &mut out);
        server.handle(now, Corner::PRIMARY, source(n), &noise(&mut seed), &mut out);
    }
    assert_eq!(allocations(), before);
    let counters = server.counters();
    assert_eq!((counters.answered, counters.refused), (150_000, 50_000));
    assert!(counters.malformed > 190_000, "{counters:?}");
}

#[test]
#[ignore = "a measurement: run it with --release -- --ignored --nocapture"]
fn what_a_request_costs() {
    const TIMES: u32 = 2_000_000;
    let names = ["bare", "classic", "with software and fingerprint", "with an unknown attribute"];
    for (limited, limits) in [(false, Limits::none()), (true, Limits::default())] {
        for (name, request) in names.iter().zip(requests()) {
            let now = Instant::now();
            let (mut server, mut out) = (server(limits, now), [0; 1500]);
            for n in 0..TIMES {
                std::hint::black_box(server.handle(now, Corner::PRIMARY, source(n), &request, &mut out));
            }
            println!("limits {limited}, {name}: {:?} each", now.elapsed() / TIMES);
        }
    }
    let (now, mut out, mut seed) = (Instant::now(), [0; 1500], 1);
    let mut server = server(Limits::default(), now);
    for n in 0..TIMES {
        std::hint::black_box(server.handle(now, Corner::PRIMARY, source(n), &noise(&mut seed), &mut out));
    }
    println!("noise, its making included: {:?} each", now.elapsed() / TIMES);
}
