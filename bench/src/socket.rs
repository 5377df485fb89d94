//! Reads into one buffer for all connections of the process, so that an idle one has none.

use std::{cell::RefCell, io};

use tokio::net::TcpStream;

/// What is read at once.
const READ_AT_ONCE: usize = 256 * 1024;

/// Hands on what is there to be read; `None` if nothing is.
pub(crate) fn try_read<T>(stream: &TcpStream, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]));
    BUFFER.with_borrow_mut(|buffer| match stream.try_read(buffer) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")),
        Ok(length) => Ok(Some(take(&buffer[..length]))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    })
}
