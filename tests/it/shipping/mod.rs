//! What is shipped beside the executable: files for init systems, packages, manifests of clusters, the manual.

mod clusters;
mod completions;
mod guides;
mod machine;
mod manual;
mod package;
mod published;
mod scripts;
mod supervisors;
mod systemd;
mod trees;
