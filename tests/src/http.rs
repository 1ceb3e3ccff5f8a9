//! The plainest HTTP client: what the worker itself answers needs no more.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// As in 200.
    pub status: u16,
    /// The head, its names in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Asks for a path on this host, with more header lines.
///
/// # Panics
/// When nobody answers.
pub async fn get(port: u16, path: &str, headers: &[&str]) -> Answer {
    request("GET", port, path, headers).await
}

/// As [`get`], with another method.
///
/// # Panics
/// When nobody answers.
pub async fn request(method: &str, port: u16, path: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let host =
        if headers.starts_with("Host:") { String::new() } else { format!("Host: 127.0.0.1:{port}\r\n") };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
