//! The limit: a relay that knows nothing of documents. Whoever connects to a path hears the update and presence messages of
//! all others there; everybody is told at once that the document is empty. No server that must understand what it
//! hands on can be cheaper.
//!
//! It writes once per member and turn of the loop, however many messages came in that turn. It serves the generator
//! alone: masks are taken to be zero, and the handshake's key to be the one in RFC 6455.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{spawn_local, yield_now},
};

use crate::{frames, socket::try_read};

/// The answer to "I have nothing": y-websocket's second step of a sync, with an update that brings nothing.
const EMPTY: &[u8] = &[0, 1, 2, 0, 0];

#[derive(Default)]
struct Room {
    members: RefCell<Vec<Rc<Member>>>,
    /// Somebody is about to write what the members have not been sent yet.
    will_flush: Cell<bool>,
}

struct Member {
    stream: TcpStream,
    unsent: RefCell<Vec<u8>>,
    wake: Notify,
}

/// Relays until it is killed.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    let mut rooms: HashMap<String, Weak<Room>> = HashMap::new();
    loop {
        let (mut stream, _) = listener.accept().await.context("the relay cannot accept connections")?;
        stream.set_nodelay(true)?;
        let Ok(path) = shake_hands(&mut stream).await else { continue };
        let room = rooms.get(&path).and_then(Weak::upgrade).unwrap_or_else(|| {
            let room = Rc::default();
            rooms.insert(path, Rc::downgrade(&room));
            room
        });
        let member = Rc::new(Member { stream, unsent: RefCell::default(), wake: Notify::new() });
        room.members.borrow_mut().push(member.clone());
        spawn_local(async move {
            // An error: the member has left.
            let _ = member.run(&room).await;
            room.members.borrow_mut().retain(|other| !Rc::ptr_eq(other, &member));
        });
    }
}

/// The path that is asked for.
async fn shake_hands(stream: &mut TcpStream) -> Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut request).await? > 0, "hung up");
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        frames::ACCEPT
    );
    stream.write_all(answer.as_bytes()).await?;
    let request = String::from_utf8(request)?;
    Ok(request.split(' ').nth(1).context("no path")?.to_owned())
}

impl Member {
    async fn run(self: &Rc<Self>, room: &Room) -> Result<()> {
        let mut rest = Vec::new();
        loop {
            let waits = !self.unsent.borrow().is_empty() && !room.will_flush.get();
            let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let ready = tokio::select! {
                ready = self.stream.ready(interest) => ready?,
                () = self.wake.notified() => continue,
            };
            if ready.is_writable() {
                self.flush();
            }
            if !ready.is_readable() {
                continue;
            }
            if try_read(&self.stream, |received| rest.extend_from_slice(received))?.is_none() {
                continue;
            }
            let mut taken = 0;
            while let Some(frame) = frames::first(&rest[taken..]) {
                taken += frame.length;
                match frame.payload {
                    [0, 0, ..] => frames::write(&mut self.unsent.borrow_mut(), frames::BINARY, EMPTY),
                    [0, 2, ..] | [1, ..] => self.tell_others(room, frame.payload),
                    _ => {}
                }
            }
            rest.drain(..taken);
            if rest.is_empty() {
                rest = Vec::new();
            }
            // Who else was heard in this turn comes along.
            if !room.will_flush.replace(true) {
                yield_now().await;
                room.will_flush.set(false);
                room.members.borrow().iter().for_each(|member| member.flush());
            }
        }
    }

    fn tell_others(self: &Rc<Self>, room: &Room, message: &[u8]) {
        for other in room.members.borrow().iter().filter(|other| !Rc::ptr_eq(other, self)) {
            frames::write(&mut other.unsent.borrow_mut(), frames::BINARY, message);
        }
    }

    fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            return;
        }
        // An error that is not "later" is seen by whoever reads.
        let taken = self.stream.try_write(&unsent).unwrap_or(0);
        unsent.drain(..taken);
        if unsent.is_empty() {
            *unsent = Vec::new();
        } else {
            self.wake.notify_one();
        }
    }
}
