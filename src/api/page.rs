//! Pages of lists.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::de::{items, number, object, shown};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items of this page that could be read.
    pub data: Vec<T>,
    /// The position of this page in the list.
    pub pagination: Pagination,
    /// The number of items of this page that could not be read.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

/// Reads each item by itself, so that an unreadable one does not hide the others.
impl<'de, T: DeserializeOwned> Deserialize<'de> for Page<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Page<T>, D::Error> {
        let RawPage { data, pagination } = RawPage::deserialize(deserializer)?;
        let wrong = |data| D::Error::custom(format!("data is {}, not a list", shown(&data)));
        let listed = items(data).map_err(wrong)?;
        let all = listed.len();
        let data: Vec<T> = listed.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
        let unreadable = (all - data.len()) as u64;
        Ok(Page { data, pagination: pagination.unwrap_or_default(), unreadable })
    }
}

#[derive(Deserialize)]
struct RawPage {
    data: Value,
    #[serde(default, deserialize_with = "object")]
    pagination: Option<Pagination>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The position of a page in a list. Pages are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pagination {
    /// The number of this page.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub current_page: Option<u64>,
    /// The number of items of this page.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub current_page_items: Option<u64>,
    /// The most items of a page.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// The number of pages.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub pages_total: Option<u64>,
    /// The number of items on all pages.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub items_total: Option<u64>,
    /// The addresses of other pages.
    #[serde(default, deserialize_with = "links", skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<PageLink>,
}

/// The address of another page, relative or absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLink {
    /// `self`, `first`, `previous`, `next` or `last`.
    pub rel: String,
    /// The address.
    pub uri: String,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortOrder {
    /// The least first.
    Asc,
    /// The greatest first.
    Desc,
}

impl<T> Page<T> {
    /// Returns the number of the next page; `None` on the last page, or if the answer does not give it.
    ///
    /// The number follows from the number of pages, else from the link to the next page, else from the number of
    /// items.
    pub fn next_page(&self) -> Option<u64> {
        let Pagination { current_page, pages_total, page_size, items_total, links, .. } = &self.pagination;
        let linked = links.iter().find(|link| link.rel.eq_ignore_ascii_case("next"));
        match (*current_page, *pages_total) {
            (Some(current), Some(total)) => current.checked_add(1).filter(|next| *next <= total),
            (current, _) if linked.is_some() => {
                // A next link without a page number still shows that another page follows.
                let next = linked?.page().or(current?.checked_add(1))?;
                // A next link that leads back would make an endless listing.
                current.is_none_or(|current| next > current).then_some(next)
            }
            (Some(current), None) => {
                let has_more = current.saturating_mul((*page_size)?) < (*items_total)?;
                current.checked_add(1).filter(|_| has_more)
            }
            (None, _) => None,
        }
    }

    /// Fills in the requested page and page size if the service does not repeat them.
    pub(super) fn with_request(mut self, page: Option<u64>, size: Option<u64>) -> Page<T> {
        let Pagination { current_page, page_size, .. } = &mut self.pagination;
        current_page.get_or_insert(page.unwrap_or(1));
        page_size.get_or_insert(size.unwrap_or(DEFAULT_PAGE_SIZE));
        self
    }
}

impl PageLink {
    /// The page that it leads to.
    fn page(&self) -> Option<u64> {
        let (_, query) = self.uri.split_once('?')?;
        let parameter = |pair: &str| pair.split_once('=')?.1.parse().ok();
        query.split('&').filter(|pair| pair.starts_with("currentPage=")).find_map(parameter)
    }
}

/// A list of links, one link alone, or an object of addresses by what they lead to.
fn links<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PageLink>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let link = |value: Value| serde_json::from_value::<PageLink>(value).ok();
    Ok(match value {
        // The list schema of the reference has one object in its place, its examples a list.
        Value::Object(ref map) if map.contains_key("rel") => link(value).into_iter().collect(),
        Value::Object(map) => {
            let linked = map.into_iter().filter_map(|(rel, uri)| Some((rel, uri.as_str()?.to_owned())));
            linked.map(|(rel, uri)| PageLink { rel, uri }).collect()
        }
        list => items(list).into_iter().flatten().filter_map(link).collect(),
    })
}

impl SortOrder {
    /// Returns the name in the query string.
    pub(super) fn name(self) -> &'static str {
        match self {
            SortOrder::Asc => "asc",
            SortOrder::Desc => "desc",
        }
    }
}

/// The service's default page size (`GET /videos`, `pageSize`).
const DEFAULT_PAGE_SIZE: u64 = 25;

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn the_next_page_follows_from_the_number_of_pages() {
        let page = |current: u64, total: u64| -> Page<String> {
            from_value(json!({"data": ["a"], "pagination": {
                "currentPage": current, "currentPageItems": 1, "pageSize": 25, "pagesTotal": total,
                "itemsTotal": 26, "links": [{"rel": "self", "uri": "/videos?currentPage=1&pageSize=25"}],
            }}))
            .unwrap()
        };
        assert_eq!(page(1, 2).next_page(), Some(2));
        assert_eq!(page(2, 2).next_page(), None);
        assert_eq!(page(1, 2).pagination.links[0].rel, "self");
    }

    #[test]
    fn links_may_be_an_object_and_pagination_may_be_missing_but_data_may_not() {
        let odd = json!({"data": [], "pagination": {"currentPage": 1, "links": {"rel": "self"}}});
        assert_eq!(from_value::<Page<String>>(odd).unwrap().pagination.current_page, Some(1));
        assert_eq!(from_value::<Page<String>>(json!({"data": []})).unwrap().next_page(), None);
        assert!(from_value::<Page<String>>(json!({"title": "an error in a 200"})).is_err());
    }

    #[test]
    fn the_next_page_follows_from_any_of_the_three_sources() {
        let next = |pagination| {
            let page: Page<String> = from_value(json!({"data": ["a"], "pagination": pagination})).unwrap();
            page.with_request(Some(2), Some(10)).next_page()
        };
        let link = |rel, uri| json!({"links": [{"rel": "self"}, 5, {"rel": rel, "uri": uri}]});
        for (pagination, page) in [
            (json!({"currentPage": "2", "pagesTotal": "3"}), Some(3)),
            (json!({"currentPage": 2.0, "pagesTotal": 3.0}), Some(3)),
            (json!({"currentPage": "2", "pagesTotal": "2", "itemsTotal": 99}), None),
            (json!({"pagesTotal": 3}), Some(3)),
            (link("next", "/videos?pageSize=10&currentPage=3"), Some(3)),
            (link("next", "/videos?cursor=abc"), Some(3)),
            (link("next", "/videos?currentPage=2"), None),
            (link("last", "/videos?currentPage=9"), None),
            (json!({"links": {"next": "/videos?currentPage=3"}}), Some(3)),
            (json!({"itemsTotal": 21}), Some(3)),
            (json!({"itemsTotal": "20"}), None),
            (json!({"currentPage": u64::MAX, "pagesTotal": u64::MAX}), None),
            (json!({"currentPage": u64::MAX, "pageSize": 0, "itemsTotal": 5}), None),
            (json!({}), None),
            (json!([]), None),
        ] {
            assert_eq!(next(pagination.clone()), page, "{pagination}");
        }
    }

    #[test]
    fn an_unreadable_item_does_not_hide_the_others() {
        let odd = json!({"data": ["a", 5, {}, "b", null]});
        let page: Page<String> = from_value(odd).unwrap();
        assert_eq!((page.data.as_slice(), page.unreadable), (&["a".to_owned(), "b".to_owned()][..], 3));
        let listed = json!({"data": {"0": "a", "2": "b"}});
        assert_eq!(from_value::<Page<String>>(listed).unwrap().data, ["a", "b"]);
        let error = from_value::<Page<String>>(json!({"data": "none"})).unwrap_err();
        assert!(error.to_string().contains("data is \"none\""), "{error}");
    }
}
