package account

import (
	"fmt"
	"net/netip"
	"strings"
)

// field is one name=value of a record; a name without value has "yes".
type field struct{ name, value string }

// fields is a record in the order in which it was written. Later fields of the same name win.
type fields []field

func (f fields) get(name string) (string, bool) {
	for i := len(f) - 1; i >= 0; i-- {
		if f[i].name == name {
			return f[i].value, true
		}
	}
	return "", false
}

func (f fields) has(name string) bool {
	value, ok := f.get(name)
	return ok && value != "no" && value != "n"
}

func (f fields) first(name, otherwise string) string {
	if value, ok := f.get(name); ok && value != "" {
		return value
	}
	return otherwise
}

// unique leaves one field of each name: the last value, in the place of the first.
func (f fields) unique() fields {
	var kept fields
	at := map[string]int{}
	for _, one := range f {
		if i, has := at[one.name]; has {
			kept[i].value = one.value
			continue
		}
		at[one.name] = len(kept)
		kept = append(kept, one)
	}
	return kept
}

// merge adds what is not there yet.
func (f fields) merge(more fields) fields {
	merged := append(fields(nil), f...)
	for _, m := range more {
		if _, has := f.get(m.name); !has {
			merged = append(merged, m)
		}
	}
	return merged
}

// override adds and replaces.
func (f fields) override(more fields) fields {
	return append(append(fields(nil), f...), more...)
}

// parseFields reads name=value words with blanks between them.
func parseFields(text string) fields {
	var f fields
	for word := range strings.FieldsSeq(text) {
		name, value, hasValue := strings.Cut(word, "=")
		if !hasValue {
			value = "yes"
		}
		f = append(f, field{name, value})
	}
	return f
}

// withDefaults applies default_fields and override_fields.
func (a *Accounts) withDefaults(f fields, defaults, overrides string, variables map[string]string) (fields, error) {
	var err error
	if f, err = a.expandFields(f, variables); err != nil {
		return nil, err
	}
	given, err := a.expandFields(parseFields(defaults), variables)
	if err != nil {
		return nil, err
	}
	for _, d := range given {
		if value, has := f.get(d.name); !has || value == "" {
			f = append(f, d)
		}
	}
	forced, err := a.expandFields(parseFields(overrides), variables)
	if err != nil {
		return nil, err
	}
	return f.override(forced), nil
}

func (a *Accounts) expandFields(f fields, variables map[string]string) (fields, error) {
	owned := false
	for i, one := range f {
		if one.name == "password" || !strings.Contains(one.value, "%") {
			continue
		}
		if !owned {
			// The record may be one that a source keeps.
			f, owned = append(fields(nil), f...), true
		}
		value, err := a.options.Expand(one.value, variables)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", one.name, err)
		}
		f[i].value = value
	}
	return f, nil
}

// netsAllow applies allow_nets: addresses and networks with commas between them.
func (f fields) netsAllow(client netip.Addr) bool {
	list, has := f.get("allow_nets")
	if !has || list == "" {
		return true
	}
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		if text == "local" && !client.IsValid() {
			return true
		}
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Contains(client.Unmap()) {
			return true
		}
		if single, err := netip.ParseAddr(text); err == nil && single.Unmap() == client.Unmap() {
			return true
		}
	}
	return false
}
