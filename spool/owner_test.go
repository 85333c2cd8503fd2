package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"mailcutover/internal/durable"
)

// Whichever way another node's name comes into the id file, this node delivers nothing
// more, though it has read the file before; a file that says the same again is nothing.
func TestAnotherOwnerIsSeen(t *testing.T) {
	for _, c := range []struct {
		name  string
		owner string
		write func(f *durable.Folder, id Identity) error
	}{
		{"adopted", "new", writeIdentity},
		{"adopted by a node with a name of the same length", "node2", writeIdentity},
		{"edited", "node2", func(f *durable.Folder, id Identity) error {
			return os.WriteFile(filepath.Join(f.Path(), idFile), []byte(id.text()), 0o600)
		}},
		{"written again", "node1", writeIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, Options{Dir: t.TempDir()})
			defer s.Close()
			id := accept(t, s, "body", rcpt("anna", "health", StateHeld))
			if _, err := readBody(t, s, id); err != nil {
				t.Fatal(err)
			}
			if err := c.write(s.folder, Identity{ID: s.ID(), Owner: c.owner, Past: []string{"node1"}}); err != nil {
				t.Fatal(err)
			}
			_, err := readBody(t, s, id)
			if adopted := c.owner != "node1"; errors.Is(err, ErrAdopted) != adopted || !adopted && err != nil {
				t.Errorf("read for a delivery: %v", err)
			}
		})
	}
}

// While it can't be said whose the spool is, nothing is delivered.
func TestAnOwnerThatCantBeRead(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	defer s.Close()
	id := accept(t, s, "body", rcpt("anna", "health", StateHeld))
	file := filepath.Join(s.o.Dir, idFile)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(id); !errors.Is(err, ErrBroken) {
		t.Errorf("without the id file: %v", err)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	if _, err := readBody(t, s, id); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}
