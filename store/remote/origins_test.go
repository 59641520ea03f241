package remote

import (
	"bytes"
	"testing"

	"postilion/store"
	"postilion/store/storetest"
)

// TestOrigins: POP3 makes the same unique identifiers of a mailbox whether or not an agent opens it.
func TestOrigins(t *testing.T) {
	for name, behind := range map[string]store.Store{"maildir": openMaildir(t), "memory": storetest.NewMemory().Open()} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, behind, Options{})
			ctx := t.Context()
			owner := store.Owner{User: "u", Home: t.TempDir(), Location: t.TempDir(), UID: -1, GID: -1}
			views := map[bool]store.View{}
			for _, far := range []bool{true, false} {
				place := behind
				if far {
					place = s
				}
				account, err := place.Open(ctx, owner)
				if err != nil {
					t.Fatal(err)
				}
				box, err := account.Mailbox(ctx, store.Inbox)
				if err != nil {
					t.Fatal(err)
				}
				if far {
					for range 3 {
						if _, err := box.Append(ctx, []store.Draft{{Content: bytes.NewReader([]byte("Subject: x\r\n\r\ny\r\n"))}}); err != nil {
							t.Fatal(err)
						}
					}
				}
				if views[far], err = box.View(ctx); err != nil {
					t.Fatal(err)
				}
			}
			got, ok := views[true].(store.Origins)
			if !ok {
				t.Fatal("a view from afar knows no origins")
			}
			if err := got.LoadOrigins(ctx); err != nil {
				t.Fatal(err)
			}
			want, known := views[false].(store.Origins)
			for i := range views[false].Len() {
				file, guid := "", ""
				if known {
					file, guid = want.Filename(i), want.GUID(i)
				}
				if got.Filename(i) != file || got.GUID(i) != guid || known && file == "" {
					t.Errorf("message %d is %q %q, want %q %q", i, got.Filename(i), got.GUID(i), file, guid)
				}
			}
		})
	}
}
