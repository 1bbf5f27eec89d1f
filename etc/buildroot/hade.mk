################################################################################
#
# hade
#
################################################################################

# With Config.in this is package/hade of a Buildroot tree. local.mk says where the source is:
# HADE_OVERRIDE_SRCDIR = /path/to/hade. Buildroot builds offline: "cargo vendor" has to have been run there, and
# .cargo/config.toml to have what it prints.
HADE_VERSION = 0.1.0
HADE_SITE = $(HADE_OVERRIDE_SRCDIR)
HADE_SITE_METHOD = local
HADE_LICENSE = MIT
HADE_LICENSE_FILES = LICENSE

define HADE_INSTALL_SETTINGS
	DESTDIR=$(TARGET_DIR) $(@D)/etc/install settings
endef
HADE_POST_INSTALL_TARGET_HOOKS += HADE_INSTALL_SETTINGS

define HADE_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 755 $(@D)/etc/busybox/S50hade $(TARGET_DIR)/etc/init.d/S50hade
endef

define HADE_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 755 $(@D)/etc/openrc/hade $(TARGET_DIR)/etc/init.d/hade
endef

define HADE_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 644 $(@D)/etc/systemd/hade.service $(TARGET_DIR)/usr/lib/systemd/system/hade.service
endef

define HADE_USERS
	hade -1 hade -1 * /var/lib/hade - - hade
endef

$(eval $(cargo-package))
