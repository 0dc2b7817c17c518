use std::{
    sync::{Arc, mpsc},
    task::{Wake, Waker},
    time::Duration,
};

use super::*;
use crate::{
    Cache, Completion, CompletionSink, Expectation, Expected, MemoryCache, MemoryOptions,
    MemoryServer, Name, Prepared, Segment, Server, Target, Ticket, Write, conformance,
};
use sealback_crypto::{Buffer, Engine, Geometry, Header, RootKey, Sealed};

/// A test that waits this long has failed: it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(20);
const STRIDE: u64 = 4096 + 48;

struct Answers(mpsc::SyncSender<(u64, Result<u64, Failure>)>);

impl CompletionSink for Answers {
    fn terminated(&self, ticket: Ticket, outcome: Result<u64, Failure>) {
        self.0.send((ticket.id, outcome)).unwrap();
    }
}

/// A file on a faulty server.
struct World {
    header: Header,
    server: FaultyServer<MemoryServer>,
    target: Arc<dyn Target>,
    sink: Arc<Answers>,
    answers: mpsc::Receiver<(u64, Result<u64, Failure>)>,
}

impl World {
    fn new(faults: &Faults) -> World {
        let root = RootKey::from_bytes(&[5; 32]);
        let new = Header::create(&root, Geometry::new(4096).unwrap(), Engine::AesGcm).unwrap();
        let server = FaultyServer::new(MemoryServer::new(MemoryOptions::default()), faults);
        let name = Name::new("file").unwrap();
        let target = server.create(&name, new.header.file_id(), &new.bytes).unwrap();
        let (sender, answers) = mpsc::sync_channel(100);
        World { header: new.header, server, target, sink: Arc::new(Answers(sender)), answers }
    }

    fn sealed(&self, n_blocks: usize) -> Sealed {
        let buffer = Buffer::unpooled(n_blocks * 4144);
        self.header.content_key().seal(0, 2, &[&vec![7; n_blocks * 4096]], buffer).unwrap()
    }

    fn write(&self, id: u64, n_blocks: usize) {
        let segments = vec![Segment::Sealed(self.sealed(n_blocks))];
        let done = Completion::new(self.sink.clone(), Ticket { stream: 0, id });
        self.target.write(Write { segments, expectations: Vec::new(), dirty: Vec::new() }, done);
    }

    fn answer(&self) -> (u64, Result<u64, Failure>) {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }

    fn stored_blocks(&self) -> u64 {
        let stored = self.server.stored(&Name::new("file").unwrap()).unwrap().len() as u64;
        (stored - 8192) / STRIDE
    }
}

fn rule(when: When, fault: Fault) -> Rule {
    Rule { operation: Operation::Write, when, fault }
}

#[test]
fn without_faults_the_contract_is_kept() {
    let options = MemoryOptions::default();
    conformance::server(&|| {
        Arc::new(FaultyServer::new(MemoryServer::new(options), &Faults::none()))
    });
    conformance::cache(&|| Arc::new(FaultyCache::new(MemoryCache::new(options), &Faults::none())));
}

#[test]
fn a_target_that_reads_less_than_it_is_asked_for_keeps_the_contract() {
    for bytes in [1, 5000] {
        let short =
            Rule { operation: Operation::Read, when: When::From(1), fault: Fault::Short(bytes) };
        let faults = Faults::scripted([short]);
        let memory = || MemoryServer::new(MemoryOptions::default());
        conformance::server(&|| Arc::new(FaultyServer::new(memory(), &faults)));
    }
}

#[test]
fn a_rule_is_for_the_operations_that_it_names() {
    let busy = || Failure::Retry(TargetError::new(TargetErrorKind::Io, "busy"));
    let faults = Faults::scripted([
        rule(When::Once(2), Fault::Fail(busy())),
        rule(When::From(4), Fault::Unknown(TargetErrorKind::TimedOut)),
    ]);
    let world = World::new(&faults);
    let failed: Vec<bool> = (1..=5)
        .map(|id| {
            world.write(id, 1);
            world.answer().1.is_err()
        })
        .collect();
    assert_eq!(failed, [false, true, false, true, true]);
    assert_eq!((faults.operations(Operation::Write), faults.injected(Operation::Write)), (5, 3));
    assert_eq!(faults.injected(Operation::Read), 0);
}

#[test]
fn what_failed_was_not_done_and_what_nobody_knows_of_was() {
    let full = Failure::Fatal(TargetError::new(TargetErrorKind::NoSpace, "full"));
    let faults = Faults::scripted([
        rule(When::Once(1), Fault::Fail(full)),
        rule(When::Once(2), Fault::Drop),
        rule(When::Once(3), Fault::Unknown(TargetErrorKind::TimedOut)),
    ]);
    let world = World::new(&faults);
    world.write(1, 3);
    assert!(matches!(world.answer().1, Err(Failure::Fatal(_))));
    world.write(2, 3);
    let (_, dropped) = world.answer();
    assert!(matches!(dropped, Err(Failure::Retry(e)) if e.kind() == TargetErrorKind::Dropped));
    assert_eq!(world.stored_blocks(), 0);
    world.write(3, 3);
    assert!(matches!(world.answer().1, Err(Failure::Retry(_))));
    assert_eq!(world.stored_blocks(), 3);
}

#[test]
fn a_short_write_stores_its_whole_blocks_and_tells_its_bytes() {
    for (bytes, n_blocks) in [(0, 0), (1, 0), (STRIDE - 1, 0), (STRIDE, 1), (3 * STRIDE + 9, 3)] {
        let faults = Faults::scripted([rule(When::From(1), Fault::Short(bytes))]);
        let world = World::new(&faults);
        world.write(1, 5);
        assert_eq!(world.answer().1.unwrap(), bytes);
        assert_eq!(world.stored_blocks(), n_blocks, "{bytes} bytes");
    }
}

#[test]
fn a_short_write_never_tells_of_more_than_went_through() {
    let short = |n_blocks| Faults::scripted([rule(When::From(1), Fault::Short(n_blocks * STRIDE))]);
    let world = World::new(&short(2));
    let outer = FaultyServer::new(world.server.clone(), &short(4));
    let target = outer.open(&Name::new("file").unwrap()).unwrap();
    for expectations in [vec![Expectation { block: 0, expected: Expected::Absent }], Vec::new()] {
        let segments = vec![Segment::Sealed(world.sealed(5))];
        let done = Completion::new(world.sink.clone(), Ticket { stream: 0, id: 1 });
        target.write(Write { segments, expectations, dirty: Vec::new() }, done);
        assert_eq!(world.answer().1.unwrap(), 2 * STRIDE);
    }
}

#[test]
fn what_is_held_is_answered_when_it_is_let_go_or_dropped_with_the_faults() {
    let faults = Faults::scripted([rule(When::From(1), Fault::Hold)]);
    let world = World::new(&faults);
    world.write(1, 1);
    world.write(2, 1);
    assert!(world.answers.try_recv().is_err());
    faults.release();
    assert_eq!([world.answer().0, world.answer().0], [1, 2]);
    world.write(3, 1);
    let World { server, target, answers, .. } = world;
    drop((server, target, faults));
    let (id, outcome) = answers.recv_timeout(PATIENCE).unwrap();
    assert!(id == 3 && outcome.is_err());
}

#[test]
fn answers_come_late_from_elsewhere_and_one_after_the_other() {
    let faults = Faults::scripted([
        rule(When::Once(1), Fault::Delay(Duration::from_millis(1))),
        rule(When::Once(2), Fault::Elsewhere),
        rule(When::Once(3), Fault::Reorder),
        rule(When::Every(2), Fault::Reorder),
    ]);
    let world = World::new(&faults);
    for id in 1..=3 {
        world.write(id, 1);
        assert_eq!(world.answer().0, id);
    }
    // It waits only shortly: on a busy machine the next one may come too late to overtake it.
    let overtaken = (2..1000).any(|pair| {
        let ids = [2 * pair, 2 * pair + 1];
        ids.iter().for_each(|id| world.write(*id, 1));
        [world.answer().0, world.answer().0] == [ids[1], ids[0]]
    });
    assert!(overtaken);
}

#[test]
fn another_client_changes_blocks_before_they_are_written() {
    let faults = Faults::scripted([rule(When::Once(1), Fault::Meddle)]);
    let (sender, called) = mpsc::channel();
    faults.set_meddler(move |blocks| sender.send(blocks).unwrap());
    let world = World::new(&faults);
    world.write(1, 2);
    assert_eq!(called.try_recv(), Ok(0..2));
    assert_eq!(world.answer().1.unwrap(), 2 * STRIDE);
}

struct Woken(mpsc::Sender<()>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn credit_is_refused_and_comes_back_and_grants_shrink() {
    let prepare = |when, fault| Rule { operation: Operation::Prepare, when, fault };
    let faults = Faults::scripted([
        prepare(When::Once(1), Fault::NoCredit),
        prepare(When::Once(2), Fault::Short(5000)),
    ]);
    let world = World::new(&faults);
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Woken(sender)));
    assert!(matches!(world.target.prepare(0, &waker), Prepared::Later));
    woken.recv_timeout(PATIENCE).unwrap();
    let granted = |prepared| match prepared {
        Prepared::Granted(grant) => grant.max_bytes,
        Prepared::Later => panic!("refused"),
    };
    assert_eq!(granted(world.target.prepare(0, &waker)), 5000);
    assert!(granted(world.target.prepare(0, &waker)) > 5000);
}

#[test]
fn a_seed_draws_the_same_each_time_and_as_often_as_its_rates_say() {
    let rates = Rates { retry: 100, short: 50, fatal: 1, ..Rates::default() };
    let drawn = |seed| {
        let faults = Faults::seeded(seed, rates);
        let drawn: Vec<String> =
            (0..10_000).map(|_| format!("{:?}", faults.next(Operation::Write))).collect();
        (drawn, faults.injected(Operation::Write))
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1).0, drawn(2).0);
    assert!((1300..1700).contains(&drawn(3).1), "{}", drawn(3).1);
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_rule_that_can_never_be_met_is_refused() {
    drop(Faults::scripted([Rule {
        operation: Operation::Cut,
        when: When::From(1),
        fault: Fault::Short(1),
    }]));
}

#[test]
fn a_cache_fails_where_it_is_told_to() {
    let io = || Failure::Retry(TargetError::new(TargetErrorKind::Io, "injected"));
    let on = |operation| Rule { operation, when: When::Once(1), fault: Fault::Fail(io()) };
    let faults = Faults::scripted([on(Operation::Forget), on(Operation::Open)]);
    let cache = FaultyCache::new(MemoryCache::new(MemoryOptions::default()), &faults);
    let (file_id, geometry) =
        (sealback_crypto::FileId::from_bytes([1; 32]), Geometry::new(4096).unwrap());
    assert!(cache.open(file_id, geometry).is_err());
    let copy = cache.open(file_id, geometry).unwrap();
    assert!(copy.forget(0..1).is_err());
    assert!(copy.forget(0..1).is_ok());
    faults.stop();
    assert!(copy.invalidate().is_ok());
}
