//! One pattern of a filter.

/// A flaw of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobFlaw {
    /// There is no pattern.
    #[error("is empty")]
    Empty,
    /// Three stars or more in a row.
    #[error("has three stars in a row; use * within a folder's name, or ** across folders")]
    Stars,
    /// A bracket or a brace without its partner.
    #[error("has a `{0}` without its partner; write \\{0} for the character itself")]
    Unpaired(char),
    /// An escaped letter without meaning.
    #[error("has `\\{0}`, which has no meaning; use / between folders")]
    Escape(char),
    /// A backslash at the end.
    #[error("ends with a backslash; write \\\\ for the character itself")]
    LoneBackslash,
    /// A regular expression.
    #[error("has a regular expression in double braces, which is not supported; use * and {{a,b}}")]
    Regex,
    /// An unknown class of characters.
    #[error("has the unknown class [:{0}:]")]
    CharacterClass(String),
    /// A range whose end comes before its beginning, or an empty class.
    #[error("has an empty range of characters")]
    Range,
    /// Too many alternatives or characters.
    #[error("has more than {MOST_ALTERNATIVES} alternatives or {MOST_TOKENS} characters")]
    TooLarge,
}

/// A compiled pattern. Matching takes time in proportion to pattern times path, whatever the stars.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    /// `true` if the pattern begins at the top of the source.
    is_anchored: bool,
    /// One list for each combination of alternatives.
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Unit(u32),
    /// Any unit but `/`.
    Any,
    /// Any number of units but `/`.
    Star,
    /// Any number of units.
    DoubleStar,
    CharacterClass(CharacterClass),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CharacterClass {
    is_negated: bool,
    ranges: Vec<(u32, u32)>,
}

impl Glob {
    /// Compiles `pattern`.
    pub(super) fn new(pattern: &[u8]) -> Result<Glob, GlobFlaw> {
        let mut units = units(pattern);
        // rclone, too, treats several separators as one.
        units.dedup_by(|next, before| *next == SLASH && *before == SLASH);
        let is_anchored = units.first() == Some(&SLASH);
        let units = if is_anchored { &units[1..] } else { &units[..] };
        if units.is_empty() {
            return Err(GlobFlaw::Empty);
        }
        let mut parser = Parser { units, at: 0, depth: 0 };
        let alternatives = parser.sequence()?;
        match parser.peek() {
            Some(_) => Err(GlobFlaw::Unpaired('}')),
            None => Ok(Glob { is_anchored, alternatives }),
        }
    }

    /// Returns `true` if the pattern matches the whole of `path`, or its end from the beginning of a name on.
    pub(super) fn matches(&self, path: &[u32]) -> bool {
        self.alternatives.iter().any(|tokens| {
            let states = self.run(tokens, path);
            states[tokens.len()]
        })
    }

    /// Returns `true` if the pattern matches every path that begins with `folder`, which ends with `/`.
    pub(super) fn covers(&self, folder: &[u32]) -> bool {
        self.alternatives.iter().any(|tokens| match tokens[..] {
            // `*` matches the last name of every path.
            [Token::Star] if !self.is_anchored => true,
            [.., Token::DoubleStar] => self.run(tokens, folder)[tokens.len()],
            _ => false,
        })
    }

    /// Returns `true` if the pattern may match a path that begins with `folder`, which ends with `/`.
    pub(super) fn may_match_below(&self, folder: &[u32]) -> bool {
        let is_alive = |tokens: &Vec<Token>| self.run(tokens, folder)[..tokens.len()].contains(&true);
        !self.is_anchored || self.alternatives.iter().any(is_alive)
    }

    /// Returns the positions in `tokens` that are reached after `path`.
    fn run(&self, tokens: &[Token], path: &[u32]) -> Vec<bool> {
        let mut states = vec![false; tokens.len() + 1];
        states[0] = true;
        skip_stars(tokens, &mut states);
        let mut next = states.clone();
        for unit in path {
            next.fill(false);
            for (i, token) in tokens.iter().enumerate().filter(|(i, _)| states[*i]) {
                match token {
                    Token::Star => next[i] |= *unit != SLASH,
                    Token::DoubleStar => next[i] = true,
                    one => next[i + 1] |= one.is(*unit),
                }
            }
            // Without an anchor the pattern may begin at each name.
            next[0] |= *unit == SLASH && !self.is_anchored;
            skip_stars(tokens, &mut next);
            std::mem::swap(&mut states, &mut next);
        }
        states
    }
}

/// A star also matches nothing.
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (i, token) in tokens.iter().enumerate() {
        if states[i] && matches!(token, Token::Star | Token::DoubleStar) {
            states[i + 1] = true;
        }
    }
}

impl Token {
    fn is(&self, unit: u32) -> bool {
        match self {
            Token::Unit(own) => *own == unit,
            Token::Any => unit != SLASH,
            Token::CharacterClass(class) => {
                let is_in = class.ranges.iter().any(|(low, high)| (*low..=*high).contains(&unit));
                unit != SLASH && is_in != class.is_negated
            }
            Token::Star | Token::DoubleStar => false,
        }
    }
}

struct Parser<'a> {
    units: &'a [u32],
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    /// Parses up to the end, or within braces up to `,` or `}`, which is left.
    fn sequence(&mut self) -> Result<Vec<Vec<Token>>, GlobFlaw> {
        let mut found: Vec<Vec<Token>> = vec![Vec::new()];
        while let Some(c) = self.peek() {
            if matches!(c, '}') || (c == ',' && self.depth > 0) {
                break;
            }
            self.at += 1;
            let token = match c {
                '{' => {
                    found = product(&found, &self.braces()?)?;
                    continue;
                }
                '*' => self.stars()?,
                '?' => Token::Any,
                '[' => Token::CharacterClass(self.class()?),
                ']' => return Err(GlobFlaw::Unpaired(']')),
                '\\' => self.escape()?,
                _ => Token::Unit(self.units[self.at - 1]),
            };
            // Checked at every token, because braces multiply the alternatives.
            if found.iter().map(Vec::len).sum::<usize>() + found.len() > MOST_TOKENS {
                return Err(GlobFlaw::TooLarge);
            }
            found.iter_mut().for_each(|tokens| tokens.push(token.clone()));
        }
        Ok(found)
    }

    fn braces(&mut self) -> Result<Vec<Vec<Token>>, GlobFlaw> {
        if self.peek() == Some('{') {
            return Err(GlobFlaw::Regex);
        }
        self.depth += 1;
        // Bounds the stack.
        if self.depth > MOST_DEPTH {
            return Err(GlobFlaw::TooLarge);
        }
        let mut found = self.sequence()?;
        while self.peek() == Some(',') {
            self.at += 1;
            found.extend(self.sequence()?);
        }
        self.depth -= 1;
        self.at += 1;
        if self.at > self.units.len() { Err(GlobFlaw::Unpaired('{')) } else { Ok(found) }
    }

    fn stars(&mut self) -> Result<Token, GlobFlaw> {
        if self.peek() != Some('*') {
            return Ok(Token::Star);
        }
        self.at += 1;
        if self.peek() == Some('*') { Err(GlobFlaw::Stars) } else { Ok(Token::DoubleStar) }
    }

    fn escape(&mut self) -> Result<Token, GlobFlaw> {
        let unit = *self.units.get(self.at).ok_or(GlobFlaw::LoneBackslash)?;
        self.at += 1;
        match char_of(unit) {
            c @ ('D' | 'S' | 'W') => {
                let ranges = perl_class(c.to_ascii_lowercase()).unwrap_or_default().to_vec();
                Ok(Token::CharacterClass(CharacterClass { is_negated: true, ranges }))
            }
            c => Ok(match perl_class(c) {
                Some(ranges) => {
                    Token::CharacterClass(CharacterClass { is_negated: false, ranges: ranges.to_vec() })
                }
                None if c.is_ascii_alphanumeric() => return Err(GlobFlaw::Escape(c)),
                None => Token::Unit(unit),
            }),
        }
    }

    /// Parses from after `[` to after `]`.
    fn class(&mut self) -> Result<CharacterClass, GlobFlaw> {
        let mut class = CharacterClass::default();
        if matches!(self.peek(), Some('!' | '^')) {
            class.is_negated = true;
            self.at += 1;
        }
        loop {
            let c = self.peek().ok_or(GlobFlaw::Unpaired('['))?;
            self.at += 1;
            match c {
                ']' if class.ranges.is_empty() => return Err(GlobFlaw::Range),
                ']' => return Ok(class),
                '[' if self.peek() == Some(':') => class.ranges.extend(self.named_class()?),
                _ => self.range(&mut class)?,
            }
        }
    }

    /// Parses one character, whose first unit has been read, or a range.
    fn range(&mut self, class: &mut CharacterClass) -> Result<(), GlobFlaw> {
        self.at -= 1;
        if self.peek() == Some('\\')
            && let Some(ranges) = self.units.get(self.at + 1).and_then(|unit| perl_class(char_of(*unit)))
        {
            self.at += 2;
            class.ranges.extend(ranges);
            return Ok(());
        }
        let low = self.member()?;
        // A `-` before `]` is the character itself.
        let is_range =
            self.peek() == Some('-') && self.units.get(self.at + 1).is_some_and(|c| char_of(*c) != ']');
        let high = if is_range {
            self.at += 1;
            self.member()?
        } else {
            low
        };
        if high < low {
            return Err(GlobFlaw::Range);
        }
        class.ranges.push((low, high));
        Ok(())
    }

    fn member(&mut self) -> Result<u32, GlobFlaw> {
        if self.peek() == Some('\\') {
            self.at += 1;
        }
        let unit = *self.units.get(self.at).ok_or(GlobFlaw::Unpaired('['))?;
        self.at += 1;
        Ok(unit)
    }

    /// Parses from after `[` to after `:]`.
    fn named_class(&mut self) -> Result<Vec<(u32, u32)>, GlobFlaw> {
        let rest: String = self.units[self.at + 1..].iter().map(|unit| char_of(*unit)).collect();
        let (name, _) = rest.split_once(":]").ok_or(GlobFlaw::Unpaired('['))?;
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "digit" => &[('0', '9')],
            "lower" => &[('a', 'z')],
            "upper" => &[('A', 'Z')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return Err(GlobFlaw::CharacterClass(name.chars().take(16).collect())),
        };
        self.at += 1 + name.chars().count() + 2;
        Ok(ranges.iter().map(|(low, high)| (u32::from(*low), u32::from(*high))).collect())
    }

    fn peek(&self) -> Option<char> {
        self.units.get(self.at).map(|unit| char_of(*unit))
    }
}

/// Returns every combination of a beginning and an end.
fn product(starts: &[Vec<Token>], ends: &[Vec<Token>]) -> Result<Vec<Vec<Token>>, GlobFlaw> {
    let total = |lists: &[Vec<Token>]| lists.iter().map(Vec::len).sum::<usize>();
    let tokens = total(starts) * ends.len() + total(ends) * starts.len();
    if starts.len() * ends.len() > MOST_ALTERNATIVES || tokens > MOST_TOKENS {
        return Err(GlobFlaw::TooLarge);
    }
    Ok(starts.iter().flat_map(|start| ends.iter().map(move |end| [&start[..], end].concat())).collect())
}

fn perl_class(c: char) -> Option<&'static [(u32, u32)]> {
    match c {
        'd' => Some(&[(0x30, 0x39)]),
        's' => Some(&[(0x09, 0x0d), (0x20, 0x20)]),
        'w' => Some(&[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)]),
        _ => None,
    }
}

/// Returns the characters of `bytes` as numbers. A byte that is no part of a character is a unit beyond Unicode.
pub(super) fn units(bytes: &[u8]) -> Vec<u32> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        units.extend(chunk.invalid().iter().map(|byte| BEYOND_UNICODE + u32::from(*byte)));
    }
    units
}

fn char_of(unit: u32) -> char {
    char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
}

const SLASH: u32 = b'/' as u32;
const BEYOND_UNICODE: u32 = 0x11_0000;
const MOST_ALTERNATIVES: usize = 1024;
const MOST_TOKENS: usize = 16_384;
const MOST_DEPTH: u32 = 16;
