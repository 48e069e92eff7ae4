//! Messages and descriptors between daemon and worker: a length, a JSON body, and files on the side (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

use bacnode_protocol::limits::IMPORTS_MAX;

use super::MESSAGE_BYTES_MAX;

/// Descriptors with one message.
const FILES_MAX: usize = 1 + IMPORTS_MAX;

/// Linux keeps a write to a closed socket from raising a signal per call; elsewhere the Rust runtime ignores the signal.
#[cfg(target_os = "linux")]
const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const RECEIVE: RecvFlags = RecvFlags::empty();

/// Sends `message`, its length and the files going first.
pub(super) fn send<T: Serialize>(mut stream: &UnixStream, message: &T, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).map_err(|_| io::Error::other("a message is too long"))?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files with a message"));
    }
    let sent = rustix::io::retry_on_intr(|| sendmsg(stream.as_fd(), &[IoSlice::new(&len)], &mut control, SEND))?;
    stream.write_all(&len[sent..])?;
    stream.write_all(&body)
}

/// Receives a message and its files; `None` at the end of the stream.
pub(super) fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut len = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        rustix::io::retry_on_intr(|| recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut len)], &mut control, RECEIVE))?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    stream.read_exact(&mut len[got.bytes..])?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, files)))
}
