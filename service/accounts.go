package service

import (
	"log/slog"
	"strings"

	"postilion/account"
	"postilion/config/dovecot"
)

// cachedToken is about what one answer to a token takes of auth_cache_size.
const cachedToken = 2 << 10

// expandMap is account.Expander over Dovecot's variables.
func expandMap(template string, variables map[string]string) (string, error) {
	return dovecot.Expand(template, dovecot.VarMap(variables))
}

// newAccounts makes the passdbs and userdbs of a view.
func newAccounts(view *dovecot.View, by *Options, log *slog.Logger) (*account.Accounts, error) {
	options := account.Options{
		Mechanisms:          view.List("auth_mechanisms"),
		UsernameFormat:      view.String("auth_username_format"),
		UsernameChars:       view.String("auth_username_chars"),
		UsernameTranslation: view.String("auth_username_translation"),
		DefaultRealm:        view.String("auth_default_realm"),
		Realms:              view.List("auth_realms"),
		MasterUserSeparator: view.String("auth_master_user_separator"),
		DisablePlaintext:    view.Bool("disable_plaintext_auth") || view.String("ssl") == "required",
		SSLRequired:         view.String("ssl") == "required",
		FailureDelay:        view.Duration("auth_failure_delay"),
		Penalty:             penaltyIsOn(view),
		Verbose:             view.Bool("auth_verbose") || view.Bool("auth_debug"),
		TokenCache:          int(view.Size("auth_cache_size") / cachedToken),
		TokenTTL:            view.Duration("auth_cache_ttl"),
		TokenNegativeTTL:    view.Duration("auth_cache_negative_ttl"),
		Hostname:            first(view.String("auth_gssapi_hostname"), view.String("hostname")),
		Expand:              expandMap,
		Open:                by.open,
		Shadow:              by.shadow(),
		Log:                 log.With("program", "auth"),
	}
	if view.Bool("auth_ssl_username_from_cert") {
		options.CertificateUsername = view.String("ssl_cert_username_field")
	}
	for _, s := range view.Sections("passdb") {
		options.Passdbs = append(options.Passdbs, account.Passdb{
			Driver: s.String("driver"), Args: s.String("args"), Deny: s.Bool("deny"), Master: s.Bool("master"), Pass: s.Bool("pass"),
			Skip: s.String("skip"), ResultSuccess: s.String("result_success"), ResultFailure: s.String("result_failure"),
			ResultInternalFail: s.String("result_internalfail"), DefaultFields: s.String("default_fields"), OverrideFields: s.String("override_fields"),
			Mechanisms: s.List("mechanisms"), UsernameFilter: s.List("username_filter"), Verbose: s.String("auth_verbose"), Where: s.Position().String(),
		})
	}
	for _, s := range view.Sections("userdb") {
		options.Userdbs = append(options.Userdbs, account.Userdb{
			Driver: s.String("driver"), Args: s.String("args"), Skip: s.String("skip"),
			ResultSuccess: s.String("result_success"), ResultFailure: s.String("result_failure"), ResultInternalFail: s.String("result_internalfail"),
			DefaultFields: s.String("default_fields"), OverrideFields: s.String("override_fields"),
			Verbose: s.String("auth_verbose"), Where: s.Position().String(),
		})
	}
	return account.New(options)
}

// penaltyIsOn tells whether guesses are slowed: `service anvil { unix_listener anvil-auth-penalty { mode = 0 } }` is how Dovecot's
// administrators switch that off.
func penaltyIsOn(view *dovecot.View) bool {
	anvil, ok := view.Section("service", "anvil")
	if !ok {
		return true
	}
	for _, l := range anvil.Sections("unix_listener") {
		if strings.HasSuffix(l.Name(), "anvil-auth-penalty") {
			return l.Int("mode") != 0
		}
	}
	return true
}
