//! Pagination of lists.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::problem::ProblemDetails;
use super::query::QueryString;
use super::response::{ApiResponse, HandlerError};

/// The requested page of a list. `number` counts from 1.
pub(super) struct PageRequest {
    number: u64,
    size: u64,
}

impl PageRequest {
    pub(super) fn from_query(query: &QueryString) -> Result<PageRequest, ProblemDetails> {
        Ok(PageRequest {
            number: query.number("currentPage", 1, 1, u32::MAX.into())?,
            size: query.number("pageSize", 25, 1, 100)?,
        })
    }

    /// Returns the items of this page, with links to the other pages.
    pub(super) fn response<T>(
        &self,
        path: &str,
        items: &[T],
        render: impl Fn(&T) -> Result<Value, HandlerError>,
    ) -> Result<ApiResponse, HandlerError> {
        let total = items.len() as u64;
        // An empty list has one page.
        let pages = total.div_ceil(self.size).max(1);
        let skipped = (self.number - 1) * self.size;
        let on_page = items.iter().skip(skipped as usize).take(self.size as usize);
        let data = on_page.map(render).collect::<Result<Vec<Value>, HandlerError>>()?;
        let body = json!({
            "pagination": {
                "currentPage": self.number,
                "currentPageItems": data.len(),
                "pageSize": self.size,
                "pagesTotal": pages,
                "itemsTotal": total,
                "links": self.links(path, pages),
            },
            "data": data,
        });
        Ok(ApiResponse::json(StatusCode::OK, body))
    }

    fn links(&self, path: &str, pages: u64) -> Vec<Value> {
        let link = |rel: &str, number: u64| {
            let uri = format!("{path}?currentPage={number}&pageSize={}", self.size);
            json!({"rel": rel, "uri": uri})
        };
        let mut links = vec![link("self", self.number), link("first", 1)];
        if self.number > 1 {
            // From beyond the end the previous page is the last one.
            links.push(link("previous", (self.number - 1).min(pages)));
        }
        if self.number < pages {
            links.push(link("next", self.number + 1));
        }
        links.push(link("last", pages));
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::response::ResponseContent;

    fn page(query: &str, items: &[u32]) -> Value {
        let page = PageRequest::from_query(&QueryString::parse(Some(query))).unwrap();
        let response = page.response("/videos", items, |item| Ok(json!(item))).ok().unwrap();
        let ResponseContent::Json(value) = response.content else { panic!("a list is JSON") };
        value
    }

    fn rels(page: &Value) -> Vec<&str> {
        let links = page["pagination"]["links"].as_array().unwrap();
        links.iter().map(|link| link["rel"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_first_page_has_no_previous_and_the_last_page_no_next_link() {
        let items: Vec<u32> = (0..5).collect();
        let first = page("pageSize=2", &items);
        assert_eq!(first["data"], json!([0, 1]));
        assert_eq!(rels(&first), ["self", "first", "next", "last"]);
        let last = page("pageSize=2&currentPage=3", &items);
        assert_eq!((&last["data"], &last["pagination"]["currentPageItems"]), (&json!([4]), &json!(1)));
        assert_eq!(rels(&last), ["self", "first", "previous", "last"]);
        assert_eq!(last["pagination"]["links"][0]["uri"], "/videos?currentPage=3&pageSize=2");
        assert_eq!(page("", &[])["pagination"]["itemsTotal"], 0);
    }
}
