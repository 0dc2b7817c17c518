//! A network between a client and a server that fails as a seed says: it delays, cuts off, resets, and swallows
//! what is on its way, requests and answers alike.
//!
//! ```sh
//! faulty_proxy 127.0.0.1:8333 7      # prints the address where it listens, and goes on until it is killed
//! ```
//!
//! Each connection has a fate of its own, drawn from the seed and the connection's number: after so many bytes
//! in one direction something happens. Then the client connects anew, and draws another.
#![forbid(unsafe_code)]

use std::{
    env, error,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use fastrand::Rng;
use rustix::net::sockopt::set_socket_linger;

/// What goes one way at once, at most.
const PIECE_BYTES: usize = 64 << 10;
/// When nothing more has come for so long, a connection that swallows is closed: an answer was on its way.
const SWALLOWED_FOR: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(to), Some(seed), None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: faulty_proxy SERVER:PORT SEED".into());
    };
    let seed: u64 = seed.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for (number, client) in (0..).zip(listener.incoming()) {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003) ^ number);
        let fate = Fate::draw(&mut rng);
        // A server that is down lets nobody in.
        if let (Ok(client), Ok(server)) = (client, TcpStream::connect(&to)) {
            connect(client, server, fate);
        }
    }
    Ok(())
}

/// What becomes of a connection.
#[derive(Clone, Copy)]
enum Fate {
    /// It carries everything.
    Good,
    /// Something happens to what goes one way, after so many bytes.
    Faulty { way: Way, after: u64, fault: Fault },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Answers,
    Requests,
}

#[derive(Clone, Copy)]
enum Fault {
    /// Both sides see the end.
    Cut,
    /// From now on each piece waits.
    Delay(Duration),
    /// Both sides see a reset.
    Reset,
    /// The rest gets lost; whoever waits for it sees the end after a while.
    Swallow,
}

impl Fate {
    fn draw(rng: &mut Rng) -> Fate {
        let fault = match rng.u32(..8) {
            0 => Fault::Cut,
            1 => Fault::Reset,
            2 | 3 => Fault::Swallow,
            4 => Fault::Delay(Duration::from_millis(rng.u64(1..20))),
            _ => return Fate::Good,
        };
        // As often between a hundred and a thousand bytes as between a million and ten.
        let way = if rng.bool() { Way::Answers } else { Way::Requests };
        Fate::Faulty { way, after: 100 << rng.u32(..17), fault }
    }

    /// What happens to what goes one way: how far it is good, and what then.
    fn of(self, asked: Way) -> (u64, Option<Fault>) {
        match self {
            Fate::Faulty { way, after, fault } if way == asked => (after, Some(fault)),
            Fate::Faulty { .. } | Fate::Good => (u64::MAX, None),
        }
    }
}

/// Carries both ways on threads of their own.
fn connect(client: TcpStream, server: TcpStream, fate: Fate) {
    let (client, server) = (Arc::new(client), Arc::new(server));
    for (way, from, to) in [(Way::Requests, &client, &server), (Way::Answers, &server, &client)] {
        let (from, to) = (from.clone(), to.clone());
        thread::spawn(move || {
            // Whichever way ends, the other one does, and the sockets are closed when both have.
            let _ = carry(&from, &to, fate.of(way));
            let _ = from.shutdown(Shutdown::Read);
            let _ = to.shutdown(Shutdown::Read);
        });
    }
}

/// Carries what goes one way until it ends.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    (mut good, fault): (u64, Option<Fault>),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let len = from.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        let n_good = usize::try_from(good).map_or(len, |good| len.min(good));
        to.write_all(&piece[..n_good])?;
        good -= n_good as u64;
        let Some(fault) = fault.filter(|_| n_good < len) else { continue };
        match fault {
            Fault::Cut => return Ok(()),
            Fault::Delay(delay) => {
                thread::sleep(delay);
                to.write_all(&piece[n_good..len])?;
            }
            Fault::Reset => {
                for socket in [from, to] {
                    // Nothing lingers: what is on its way is lost, and the other side is told so.
                    set_socket_linger(socket, Some(Duration::ZERO))?;
                }
                return Ok(());
            }
            Fault::Swallow => {
                from.set_read_timeout(Some(SWALLOWED_FOR))?;
                while from.read(&mut piece)? > 0 {}
                return Ok(());
            }
        }
    }
}
