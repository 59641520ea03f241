package account

import (
	"context"
	"errors"
	"reflect"
	"testing"
)

func TestPassdbFields(t *testing.T) {
	a := testAccounts(t, nil)
	ctx := context.Background()
	for name, want := range map[string][]Field{"alice": nil, "shut": {{"nologin", "y"}, {"reason", "closed"}}} {
		user, got, err := a.PassdbFields(ctx, Client{Service: "imap"}, name)
		if err != nil || user != name || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s %v, %v", name, user, got, err)
		}
	}
	for _, name := range []string{"nobody", "near", "", "a\x00b"} {
		if _, _, err := a.PassdbFields(ctx, Client{Service: "imap"}, name); !errors.Is(err, ErrNoUser) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
