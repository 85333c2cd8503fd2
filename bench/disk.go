package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

// disks measures what a message leaves on a node's disk: in the log and the ledger when it goes
// through, and in the spool while it is held.
func disks(t peers.TB, o options) figure.Part {
	peers.Need(t, "smtp-source", "smtp-sink")
	messages := min(o.starts/5, heldNames)
	through := newSettings(t, peers.StartSink(t).Addr)
	startNode(t, through)
	send(t, through.addr(), recipient, sessions)
	log, ledger := logged(t, through.dir), room(t, filepath.Join(through.data(), "ledger"))
	send(t, through.addr(), recipient, messages)
	log, ledger = logged(t, through.dir)-log, room(t, filepath.Join(through.data(), "ledger"))-ledger

	n := startHolder(t, peers.StartSink(t).Addr, func(t peers.TB, s settings) {
		s.launch(t, build(t, s.dir, "./cmd/mailcutover"))
		s.fill(t)
	})
	open := n.hold(t)
	spool := room(t, filepath.Join(n.s.data(), "spool"))
	numbered(t, n.s.addr(), messages)
	spool = room(t, filepath.Join(n.s.data(), "spool")) - spool
	n.replayed(t, open())
	each := func(bytes int64) float64 { return float64(bytes) / float64(messages) }
	return figure.Part{
		Name:  "What a message leaves on a node's disk",
		Notes: []string{"Of messages of 10 KiB for one recipient each: room that files take, the log without compression."},
		Figures: []figure.Figure{
			figure.New("log, a message that goes through", "bytes", each(log)),
			figure.New("ledger, a message that goes through", "bytes", each(ledger)),
			figure.New("spool, a held message", "bytes", each(spool)),
		},
	}
}

// logged returns how long a node's log is.
func logged(t peers.TB, dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatalf("the node's log: %v", err)
	}
	return info.Size()
}

// room returns the bytes that what lies in a directory takes on the disk.
func room(t peers.TB, dir string) (bytes int64) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += stat.Blocks * 512 // st_blocks counts those, whatever the file system's are
		}
		return nil
	})
	if err != nil {
		t.Fatalf("room of %s: %v", dir, err)
	}
	return bytes
}
