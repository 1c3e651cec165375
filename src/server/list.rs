//! Lists in pages.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::problem::Problem;
use super::query::Query;

/// Which page of a list, counted from 1.
pub(super) struct Page {
    number: u64,
    size: u64,
}

impl Page {
    pub(super) fn of(query: &Query) -> Result<Page, Problem> {
        Ok(Page {
            number: query.number("currentPage", 1, 1, u32::MAX.into())?,
            size: query.number("pageSize", 25, 1, 100)?,
        })
    }

    /// The items of this page, and how to get to the others.
    pub(super) fn answer<T>(
        &self,
        path: &str,
        items: &[T],
        render: impl Fn(&T) -> Result<Value, Failure>,
    ) -> Result<Answer, Failure> {
        let total = items.len() as u64;
        let pages = total.div_ceil(self.size).max(1);
        let skipped = (self.number - 1) * self.size;
        let on_page = items.iter().skip(skipped as usize).take(self.size as usize);
        let data = on_page.map(render).collect::<Result<Vec<Value>, Failure>>()?;
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
        Ok(Answer::json(StatusCode::OK, body))
    }

    fn links(&self, path: &str, pages: u64) -> Vec<Value> {
        let link = |rel: &str, number: u64| {
            let uri = format!("{path}?currentPage={number}&pageSize={}", self.size);
            json!({"rel": rel, "uri": uri})
        };
        let mut links = vec![link("self", self.number), link("first", 1)];
        if self.number > 1 {
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
    use crate::server::answer::Content;

    fn page(query: &str, items: &[u32]) -> Value {
        let page = Page::of(&Query::parse(Some(query))).unwrap();
        let answer = page.answer("/videos", items, |item| Ok(json!(item))).ok().unwrap();
        let Content::Json(value) = answer.content else { panic!("a list is JSON") };
        value
    }

    fn rels(page: &Value) -> Vec<&str> {
        let links = page["pagination"]["links"].as_array().unwrap();
        links.iter().map(|link| link["rel"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_ends_have_no_neighbour() {
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
