//! An upstream that does what the path says, faults included.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;

static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Starts it; it ends with the test's process.
pub fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

struct Head {
    path: String,
    length: u64,
    is_chunked: bool,
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    let mut stream = stream;
    while let Some(head) = read_head(&mut reader)? {
        let (what, size) = head
            .path
            .trim_start_matches("/u/")
            .split_once('/')
            .unwrap_or((head.path.trim_start_matches("/u/"), "0"));
        let size: u64 = size.parse().unwrap_or(0);
        match what {
            "bytes" => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
                write_bytes(&mut stream, size)?;
            }
            "chunked" => {
                write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let mut left = size;
                while left > 0 {
                    let here = left.min(1000);
                    write!(stream, "{here:x}\r\n")?;
                    write_bytes(&mut stream, here)?;
                    stream.write_all(b"\r\n")?;
                    left -= here;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            // How many bytes came.
            "sink" => {
                let count = read_body(&mut reader, &head)?.to_string();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{count}",
                    count.len()
                )?;
            }
            "early" => {
                // Answers before it has read the body, and reads it all the same.
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")?;
                read_body(&mut reader, &head)?;
            }
            "longer" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello")?;
                return stream.shutdown(Shutdown::Both);
            }
            "reset" => return reset(&stream),
            "reset-in-body" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")?;
                write_bytes(&mut stream, 20_000)?;
                return reset(&stream);
            }
            "close-in-body" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")?;
                write_bytes(&mut stream, 20_000)?;
                return stream.shutdown(Shutdown::Both);
            }
            "close-in-chunks" => {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                )?;
                return stream.shutdown(Shutdown::Both);
            }
            "garbage" => stream.write_all(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n")?,
            "both-lengths" => stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            )?,
            "half-head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-")?;
                return stream.shutdown(Shutdown::Both);
            }
            "stall" => {
                // Until the proxy has had enough.
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                let _ = reader.read(&mut [0]);
                return Ok(());
            }
            _ => return stream.shutdown(Shutdown::Both),
        }
    }
    Ok(())
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    // Closing with a linger of nothing resets (socket(7)).
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn write_bytes(stream: &mut TcpStream, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let here = left.min(PIECE.len() as u64);
        stream.write_all(&PIECE[..usize::try_from(here).unwrap_or(0)])?;
        left -= here;
    }
    Ok(())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut head = Head { path, length: 0, is_chunked: false };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(head)) };
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.is_chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
}

fn read_body(reader: &mut impl BufRead, head: &Head) -> io::Result<u64> {
    if !head.is_chunked {
        return discard(reader, head.length);
    }
    let mut count = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        count += discard(reader, size)?;
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(count);
        }
    }
}

fn discard(reader: &mut impl Read, size: u64) -> io::Result<u64> {
    let count = io::copy(&mut reader.take(size), &mut io::sink())?;
    if count < size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}
