package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

// table runs bench/table in processes of its own: what it measures is their memory.
func table(t peers.TB, o options) figure.Part {
	peers.Need(t, "redis")
	dir, err := os.MkdirTemp("", "mailcutover-bench-")
	if err != nil {
		t.Fatalf("directory for the table's bench: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove directory of the table's bench: %v", err)
		}
	})
	cmd := exec.CommandContext(t.Context(), build(t, dir, "./bench/table"), "-json", "-agencies", fmt.Sprint(o.agencies), "-mailboxes", fmt.Sprint(o.mailboxes))
	cmd.Stderr = o.progress
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench of the table: %v", err)
	}
	var part figure.Part
	if err := json.Unmarshal(out, &part); err != nil {
		t.Fatalf("bench of the table: read its figures: %v", err)
	}
	return part
}
