//! The packages for Buildroot and OpenWrt, as far as they can be had without those: read by make, with the rules of the
//! tree replaced by what shows what ours are; and procd by functions that write down what they are told.

use crate::support::{Place, has, run};
use std::path::Path;
use std::process::Command;

fn etc(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name);
    path.to_str().unwrap().to_owned()
}

fn version(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().to_owned()
}

#[test]
fn buildroot_installs_settings_and_the_script_of_its_init() {
    if !has("make") {
        return;
    }
    let place = Place::new();
    let root = env!("CARGO_MANIFEST_DIR");
    // In $(@D) is the source, as in Buildroot, for the stamps of what is done stand in it.
    let tree = format!(
        "TARGET_DIR = {}/target\nINSTALL = install\n\
         define cargo-package\n\
         {root}/.stamp-hooks: ; $$(foreach hook,$$(HADE_POST_INSTALL_TARGET_HOOKS),$$($$(hook)))\n\
         {root}/.stamp-%: ; $$(HADE_INSTALL_INIT_$$*)\n\
         endef\ninclude {}\n",
        place.dir.display(),
        etc("buildroot/hade.mk")
    );
    place.write("Makefile", tree);
    for stamp in ["hooks", "SYSV", "OPENRC", "SYSTEMD"] {
        let mut make = Command::new("make");
        make.args(["--silent", "--warn-undefined-variables"]);
        make.arg(format!("{root}/.stamp-{stamp}"));
        run(make.current_dir(&place.dir)).ok();
    }
    let files = place.sh("cd target && find . -type f | sort", &[]);
    let expected = "./etc/hade/app.conf\n./etc/init.d/S50hade\n./etc/init.d/hade\n\
                    ./usr/lib/systemd/system/hade.service\n";
    assert_eq!(files, expected);
    let text = std::fs::read_to_string(etc("buildroot/hade.mk")).unwrap();
    assert_eq!(version(&text, "HADE_VERSION = "), env!("CARGO_PKG_VERSION"));
}

#[test]
fn openwrt_installs_the_executable_settings_and_the_script_for_procd() {
    if !has("make") {
        return;
    }
    let place = Place::new();
    // What OpenWrt's own files define, by their names.
    place.write(
        "top/rules.mk",
        "INCLUDE_DIR = $(TOPDIR)\nINSTALL_DIR = install -d\nINSTALL_BIN = install -m 755\nCP = cp -R\n\
         PKG_BUILD_DIR = build\nPKG_INSTALL_DIR = installed\nRUST_ARCH_DEPENDS = @arm\n",
    );
    place.write("top/package.mk", "");
    place.write(
        "top/feeds/packages/lang/rust/rust-package.mk",
        "define RustBinPackage\nendef\ndefine BuildPackage\nall: ; $(call Build/Prepare) && $(call Package/$(1)/install,$(CURDIR)/root)\nendef\n",
    );
    place.sh(
        r#"cp -R "$1" package; mkdir -p package/installed/bin source; cp -R "$2" source/etc; : >package/installed/bin/hade"#,
        &[&etc("openwrt"), &etc("")],
    );
    let makefile = place.read("package/Makefile");
    // Each line of a recipe is a command of its own; here they are one.
    let joined = makefile
        .replace("etc/init.d\n\t", "etc/init.d && ")
        .replace("bin/hade\n\t", "bin/hade && ")
        .replace("init.d/hade\n\t", "init.d/hade && ")
        .replace("$(PKG_BUILD_DIR)\n\t", "$(PKG_BUILD_DIR) && ");
    place.write("package/Makefile", joined);
    let mut make = Command::new("make");
    make.args(["--silent", "TOPDIR=../top", "HADE_SOURCE=../source"]);
    run(make.current_dir(place.path("package"))).ok();
    let files = place.sh("cd package/root && find . -type f | sort", &[]);
    let expected = "./etc/hade/app.conf\n./etc/init.d/hade\n./usr/bin/hade\n";
    assert_eq!(files, expected);
    assert_eq!(
        version(&makefile, "PKG_VERSION:="),
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn procd_is_told_all_that_it_needs() {
    let place = Place::new();
    let script = r#"
        for name in open_instance close_instance set_param; do
            eval "procd_$name() { echo $name \"\$@\"; }"
        done
        mkdir() { :; }
        chown() { :; }
        . "$1"
        echo $USE_PROCD $START $STOP
        start_service
    "#;
    let said = place.sh(script, &[&etc("openwrt/files/hade.init")]);
    for line in [
        "1 95 05",
        "open_instance",
        "set_param command /usr/bin/hade app start",
        "set_param env APP_CONFIG=/etc/hade/app.conf APP_BASE_DIR=/",
        "set_param user hade",
        "set_param respawn",
        "set_param term_timeout 30",
        "close_instance",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
}
