package service

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"postilion/service/care"
	"postilion/service/control"
	"postilion/store"
)

// TestCareWhileServing asks a serving process to look after its vault.
func TestCareWhileServing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vault")
	config := mailboxConfig(t, dir, path, freePort(t))
	s, err := startMailboxes(t, config)
	if err != nil {
		t.Fatal(err)
	}
	places, err := FindPlaces(Options{DovecotFile: config})
	if err != nil || places.Vault != path || len(places.ControlSockets) != 1 || places.ControlSockets[0] != filepath.Join(dir, "run", "control", "socket") {
		t.Fatalf("%+v, %v", places, err)
	}
	opened, err := s.stores.find("")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Subject: one\r\n\r\n1\r\n", "Subject: two\r\n\r\n2\r\n"} {
		d := &store.Delivery{Content: strings.NewReader(text), Targets: []store.Target{{Owner: store.Owner{User: "alice@example.test"}, Mailbox: store.Inbox}}}
		if outcomes, err := opened.Store.Deliver(t.Context(), d); err != nil || outcomes[0].Err != nil {
			t.Fatal(outcomes, err)
		}
	}
	ask := func(name string, r care.Request) (care.Result, error) {
		var result care.Result
		err := control.Call(t.Context(), places.ControlSockets[0], name, r, func(json.RawMessage) {}, &result)
		return result, err
	}
	if r, err := ask(care.Check, care.Request{Vault: path, Repair: true}); err != nil || r.Checked == nil || r.Checked.Messages != 2 || r.Checked.Problems != 0 || r.Files.Damaged != 0 {
		t.Errorf("check: %+v, %v", r, err)
	}
	if r, err := ask(care.Compact, care.Request{}); err != nil || r.Compact == nil {
		t.Errorf("compact: %+v, %v", r, err)
	}
	if r, err := ask(care.Backup, care.Request{Vault: path, Dir: filepath.Join(dir, "backup")}); err != nil || r.Backup == nil || r.Backup.Files < 4 {
		t.Errorf("backup: %+v, %v", r, err)
	}
	restored := care.Request{Vault: path, Dir: filepath.Join(dir, "backup"), Account: "alice@example.test"}
	if r, err := ask(care.Restore, restored); err != nil || r.Carried.Messages != 2 || !strings.HasPrefix(r.Into, "Restored 2") {
		t.Errorf("restore: %+v, %v", r, err)
	}
	if r, err := ask(care.Export, care.Request{Format: "maildir", Dir: filepath.Join(dir, "export")}); err != nil || r.Carried.Messages != 4 {
		t.Errorf("export: %+v, %v", r, err)
	}
	if _, err := ask(care.Check, care.Request{Vault: "/elsewhere"}); err == nil || !strings.Contains(err.Error(), "does not serve the vault /elsewhere") {
		t.Errorf("another vault: %v", err)
	}
	if _, err := ask(care.Backup, care.Request{Dir: "here"}); err == nil || !strings.Contains(err.Error(), "no absolute path") {
		t.Errorf("a relative path: %v", err)
	}
	stopServer(t, s)
	if err := control.Call(context.Background(), places.ControlSockets[0], care.Check, nil, nil, nil); !errors.Is(err, control.ErrNobody) {
		t.Errorf("after the end: %v", err)
	}
}

// TestNoControlSocket: a server without its control socket serves.
func TestNoControlSocket(t *testing.T) {
	dir := t.TempDir()
	config := mailboxConfig(t, dir, filepath.Join(dir, "vault"), freePort(t))
	writeFile(t, filepath.Join(dir, "run"), "")
	for _, setting := range []string{"postilion_control_socket = none\n", "postilion_control_socket = " + dir + "/users/socket\n"} {
		path := filepath.Join(dir, "with.conf")
		writeFile(t, path, "!include "+config+"\nbase_dir = "+dir+"/base\n"+setting)
		s, err := startMailboxes(t, path)
		if err != nil {
			t.Fatal(err)
		}
		if s.control != nil {
			t.Error("there is a control socket")
		}
		stopServer(t, s)
	}
}
