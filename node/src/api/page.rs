//! What a request asks for in its query, and the pages of lists.
//!
//! A token says where the next page starts, and is the lists' own business.

use std::collections::HashMap;

use bacnode_protocol::api::Page;
use serde::Deserialize;

use super::error::ApiError;

/// Items on a page, unless the request says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The query of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Params(HashMap<String, String>);

impl Params {
    /// A parameter that says something.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// One that is ours, and must not be misunderstood: `true` or `false`.
    pub(super) fn exact_flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::bad(format!("`{name}={}`: must be true or false", shown(other)))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        // Python clients write `True`.
        self.one_of(name, &[("false", false), ("true", true), ("0", false), ("1", true)])
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let read = |text: &str| {
            text.parse().map_err(|_| ApiError::bad(format!("`{name}={}`: must be a whole number", shown(text))))
        };
        self.text(name).map(read).transpose()
    }

    /// One of `known`, the first without the parameter.
    pub(super) fn one_of<T: Copy>(&self, name: &str, known: &[(&'static str, T)]) -> Result<T, ApiError> {
        let wanted = self.text(name).unwrap_or(known[0].0);
        let found = known.iter().find(|(text, _)| text.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = known.iter().map(|(text, _)| *text).filter(|text| !text.is_empty()).collect();
            ApiError::bad(format!("`{name}={}`: must be one of {}", shown(wanted), known.join(", ")))
        })
    }

    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let limit = self.number("limit")?.filter(|limit| *limit > 0);
        Ok(limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX)))
    }

    /// Where the page starts, as the page before said.
    pub(super) fn cursor(&self) -> Result<Option<Vec<u8>>, ApiError> {
        let read = |text: &str| {
            hex::decode(text).map_err(|_| {
                ApiError::bad(format!("`next_token={}`: no page of this list gave it", shown(text)))
                    .hint("without it the first page is given")
            })
        };
        self.text("next_token").map(read).transpose()
    }

    /// The page of a list in the order of its keys, or the other way round: what follows the page before, whatever was added,
    /// changed or forgotten meanwhile.
    pub(super) fn page_by<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> Vec<u8>,
        reverse: bool,
    ) -> Result<Page<T>, ApiError> {
        let (cursor, limit) = (self.cursor()?, self.limit()?);
        let follows = |item: &T| {
            cursor.as_ref().is_none_or(|cursor| if reverse { key(item) <= *cursor } else { key(item) >= *cursor })
        };
        let mut items = items.into_iter().filter(follows);
        let page: Vec<T> = items.by_ref().take(limit).collect();
        let next = items.next().map(|next| token(&key(&next)));
        Ok(Page { items: page, next_token: next.unwrap_or_default() })
    }

    /// The page of a list that is at hand in full, and hardly changes.
    pub(super) fn page_of<T>(&self, items: impl IntoIterator<Item = T>) -> Result<Page<T>, ApiError> {
        let skip = match self.cursor()? {
            None => 0,
            Some(bytes) => usize::from_be_bytes(
                bytes.try_into().map_err(|_| ApiError::bad("`next_token`: no page of this list gave it"))?,
            ),
        };
        let limit = self.limit()?;
        let mut items = items.into_iter().skip(skip);
        let page: Vec<T> = items.by_ref().take(limit).collect();
        let next = items.next().map(|_| token(&(skip + limit).to_be_bytes()));
        Ok(Page { items: page, next_token: next.unwrap_or_default() })
    }
}

/// The token of the page that starts there.
pub(super) fn token(cursor: &[u8]) -> String {
    hex::encode(cursor)
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
