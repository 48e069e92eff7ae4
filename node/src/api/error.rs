//! Errors as the API tells them.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bacnode_protocol::api::ErrorBody;
use bacnode_protocol::job::InvalidSpec;

use crate::content::ContentError;
use crate::store::StoreError;

/// An answer that is not the one hoped for.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    pub(super) message: String,
    hint: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: String::new() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut id = [0; 8];
        let _ = getrandom::fill(&mut id);
        let request_id = hex::encode(id);
        if self.status.is_server_error() {
            tracing::error!(request = request_id, error = self.message, "a request failed");
        }
        let body = ErrorBody {
            status: self.status.as_u16(),
            message: self.message,
            request_id,
            code: self.code.into(),
            component: "bacnode".into(),
            hint: self.hint,
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<InvalidSpec> for ApiError {
    fn from(error: InvalidSpec) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidSpec", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Store", error.to_string())
    }
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        let (status, code) = match &error {
            ContentError::Missing(_) => (StatusCode::NOT_FOUND, "NotFound"),
            ContentError::Refused(_) | ContentError::Malformed { .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            ContentError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "Full"),
            ContentError::Store(_) | ContentError::Io { .. } | ContentError::Damaged(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Content")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

pub(super) async fn no_such_path(request: Request) -> ApiError {
    ApiError::not_found(format!("there is nothing at `{}`", request.uri().path()))
}

pub(super) async fn no_such_method(request: Request) -> ApiError {
    let message = format!("`{}` does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method", message)
}
