// Package dovecot reads dovecot.conf as Dovecot 2.3.19 reads it: include files, sections, the filters protocol, local, local_name
// and remote, values from files, variables, and the defaults of every setting and service. It follows doveconf(1) and the pages on
// the configuration file in Dovecot's manual; behaviour that those leave open was observed at the real program.
//
// It is not a server and decides nothing: it answers which value holds for a connection (Config.For), where that value was written
// (View.Where), and what of a configuration is honoured, has no meaning here, or is refused (Config.Check). Passwords, tables and
// certificates named by settings are opened by those who use them; only "<file" values are read here, because they are values.
//
// # Grammars
//
// The grammar is that of 2.3, and where it refuses, so does this package; but it goes on reading and lists every mistake with file
// and line, where Dovecot names the first. Settings of 1.x that Dovecot 2.3 still translates ("protocols = imaps", "auth default {
// passdb pam { } }", "socket listen", "ssl_cert_file", "protocol imap { listen = *:143 }") are translated the same way, with a warning each.
// "ssl_protocols = !SSLv2" is accepted, which 2.3.19 refuses: it excludes what cannot occur.
//
// A file whose first setting is "dovecot_config_version = 2.4..." is in the grammar of 2.4: the settings of 2.4 that have an
// equivalent (mail_driver with mail_path, "passdb static { }", ssl_server_cert_file, %{user | username} ...) become that equivalent,
// settings unknown to both are named by Check and do not keep a server from starting. Without that first line a setting of 2.4 is
// unknown, as it is to 2.3, and the message says which line is missing.
//
// # Differences from Dovecot 2.3.19
//
// Known and kept: "/var/run/dovecot" before the path of an old auth socket is dropped like "/run/dovecot"; "protocol managesieve {
// listen }" reaches the ManageSieve listener, which Dovecot misses; sieve_storage becomes plugin { sieve_dir }, as Dovecot says but
// does not do; blanks that removed workarounds leave are dropped; an ssl_protocols that names nothing known changes nothing. The
// existence of mail_plugin_dir and the syntax of event filters are not looked at: nothing here reads either.
//
// # Limits
//
// A file has at most MaxFileSize octets, a line (with its continuations) MaxLineLength, one configuration MaxFiles files nested
// MaxIncludeDepth deep and MaxSettings settings; sections nest MaxSectionDepth deep; a value grows by variables to at most
// MaxValueLength. Beyond a limit Load fails with file and line.
package dovecot
