//! Titles and metadata that depend on the file: the templates of `--title` and `--metadata`.

use std::path::Path;

use ringlift::NewVideo;
use ringlift::bulk::{Template, TemplateValues};

use crate::cli::exit::CommandError;
use crate::cli::upload_args::DescriptionArgs;

/// The properties of the videos of one command line.
#[derive(Debug)]
pub(in crate::cli) struct VideoTemplates {
    /// The video with the properties that are the same for every file.
    common: NewVideo,
    /// The title; `None` for the file's name.
    title: Option<Template>,
    metadata: Vec<(String, Template)>,
}

impl VideoTemplates {
    /// Reads the templates of the flags. Returns a usage error for a text that is no template.
    pub(in crate::cli) fn of(args: &DescriptionArgs) -> Result<VideoTemplates, CommandError> {
        let template = |flag: &str, text: &str| -> Result<Template, CommandError> {
            text.parse().map_err(|error| CommandError::usage(format!("{flag}: {error}")))
        };
        let mut common = args.video();
        common.title = String::new();
        common.metadata.clear();
        let title = args.title.as_deref().map(|text| template("--title", text)).transpose()?;
        let value = |(key, text): &(String, String)| Ok((key.clone(), template("--metadata", text)?));
        let metadata = args.metadata.iter().map(value).collect::<Result<_, CommandError>>()?;
        Ok(VideoTemplates { common, title, metadata })
    }

    /// Returns `true` if every file gets the same properties.
    pub(in crate::cli) fn are_constant(&self) -> bool {
        let values = self.metadata.iter().map(|(_, value)| value);
        self.title.iter().chain(values).all(Template::is_constant)
    }

    /// Returns the video for a file. An empty title stands for the file's name. `index` counts the files of the
    /// command line from 0.
    pub(in crate::cli) fn video(&self, file: &Path, index: usize) -> NewVideo {
        // A file that is named itself is its own source, as for `ringlift ingest`.
        let relative = file.file_name().map_or(file, Path::new);
        let values = TemplateValues::new(file, relative, index as u64 + 1);
        let mut video = self.common.clone();
        video.title = self.title.as_ref().map(|title| title.render(&values)).unwrap_or_default();
        for (key, value) in &self.metadata {
            video = video.metadata(key, value.render(&values));
        }
        video
    }
}

/// Returns `true` if a title would be the same for every file. A text that is no template is refused elsewhere.
pub(in crate::cli) fn is_same_for_all(title: &str) -> bool {
    title.parse::<Template>().is_ok_and(|title| title.is_constant())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, CliCommand};

    fn templates(flags: &[&str]) -> Result<VideoTemplates, CommandError> {
        let line = ["ringlift", "upload", "f"].iter().chain(flags);
        match Cli::parse_from(line).command {
            CliCommand::Upload(args) => VideoTemplates::of(&args.description),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_file_gets_the_title_and_the_metadata_of_its_own() {
        let flags =
            ["--title", "{stem} ({index})", "--metadata", "from={path}", "--metadata", "{a}=b", "--tag", "t"];
        let templates = templates(&flags).unwrap();
        assert!(!templates.are_constant());
        let video = templates.video("films/a.mp4".as_ref(), 6);
        assert_eq!((video.title.as_str(), video.tags), ("a (7)", vec!["t".to_owned()]));
        let metadata: Vec<_> =
            video.metadata.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect();
        assert_eq!(metadata, [("from", "films/a.mp4"), ("{a}", "b")]);
    }

    #[test]
    fn properties_without_a_name_in_braces_are_the_same_for_all_files() {
        let constant = templates(&["--title", "{{x}}", "--metadata", "a=b"]).unwrap();
        assert!(constant.are_constant());
        assert_eq!(constant.video("a.mp4".as_ref(), 0).title, "{x}");
        assert_eq!(templates(&[]).unwrap().video("a.mp4".as_ref(), 0).title, "");
        assert!(is_same_for_all("x") && !is_same_for_all("x {dir}") && !is_same_for_all("{"));
    }

    #[test]
    fn a_text_that_is_no_template_is_refused_with_its_flag() {
        for (flag, text) in [("--title", "{titel}"), ("--metadata", "config={\"a\": 1}")] {
            let refused = templates(&[flag, text]).unwrap_err().to_string();
            assert!(refused.starts_with(flag) && refused.contains("{{"), "{refused}");
        }
    }
}
