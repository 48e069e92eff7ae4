//! A WebSocket to the daemon, by the same ways as its other requests.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};

use crate::client::Client;
use crate::error::{Failure, Result};

/// What a WebSocket goes through.
pub(crate) trait Way: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Way for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Way>>;

/// Opens one at this path of the API.
pub(crate) async fn open(client: &Client, path: &str) -> Result<Socket> {
    let failed = |cause: String| Failure::failed(format!("a stream from the node cannot be had: {cause}"));
    let url = format!("{}/api/v1/{path}", client.base().replacen("http", "ws", 1));
    let mut request = url.into_client_request().map_err(|error| failed(error.to_string()))?;
    if let Some(token) = client.token() {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let value = value.map_err(|_| Failure::usage("BACNODE_TOKEN: this is no token"))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let way = client.connect().await.map_err(|error| failed(error.to_string()))?;
    let (socket, _) = tokio_tungstenite::client_async(request, way).await.map_err(|error| {
        let told = match &error {
            Error::Http(response) => response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok()),
            _ => None,
        };
        told.map_or_else(|| failed(error.to_string()), Failure::from_api)
    })?;
    Ok(socket)
}
