//! A component that prints the web pages and files that its arguments name. The tests run it.

use wasi::http::outgoing_handler::handle;
use wasi::http::types::{Fields, IncomingResponse, OutgoingRequest, Scheme};

fn main() {
    for url in std::env::args().skip(1) {
        if url.starts_with('/') {
            print!("{}", std::fs::read_to_string(&url).expect("a file"));
            continue;
        }
        match fetch(&url) {
            Ok((status, body)) => println!("{url}: {status}, {body}"),
            Err(cause) => {
                eprintln!("{url}: {cause}");
                std::process::exit(1);
            }
        }
    }
}

fn fetch(url: &str) -> Result<(u16, String), String> {
    let (scheme, rest) = url.split_once("://").ok_or("this is no URL")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "the scheme is refused")?;
    request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "the path is refused")?;
    let answer = handle(request, None).map_err(|code| format!("{code:?}"))?;
    answer.subscribe().block();
    let answer = answer.get().ok_or("no answer")?.map_err(|()| "the answer was taken")?;
    let answer = answer.map_err(|code| format!("{code:?}"))?;
    Ok((answer.status(), String::from_utf8_lossy(&body_of(&answer)?).trim().to_owned()))
}

fn body_of(answer: &IncomingResponse) -> Result<Vec<u8>, String> {
    let body = answer.consume().map_err(|()| "the body was taken")?;
    let stream = body.stream().map_err(|()| "the body was taken")?;
    let mut bytes = Vec::new();
    // The stream ends with an error that says that it is closed.
    while let Ok(piece) = stream.blocking_read(64 << 10) {
        bytes.extend(piece);
    }
    Ok(bytes)
}
