package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/ledger"
	"mailcutover/spool"
)

const (
	// spoolLook is how often it is looked whether spool and ledger are well.
	spoolLook = 2 * time.Second

	// spoolSilence is after how long without a look they are taken to be unwell: a disk
	// that hangs answers nobody.
	spoolSilence = 15 * time.Second

	// almostFull is the part of a bound of the spool from which on it is nearly reached.
	almostFull = 0.9
)

// spoolWatch is what the last look at spool and ledger showed.
type spoolWatch struct {
	mu       sync.Mutex
	at       time.Time
	troubles []string
}

func (w *spoolWatch) set(troubles []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.troubles = time.Now(), troubles
}

// list returns what is wrong, without waiting for any disk.
func (w *spoolWatch) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.troubles)
	if silent := time.Since(w.at); !w.at.IsZero() && silent > spoolSilence {
		out = append(out, fmt.Sprintf("Spool and ledger haven't answered for %s: their disk hangs.", silent.Round(time.Second)))
	}
	return out
}

// watchSpool keeps the alarms about spool and ledger: they stand as long as their reason
// does. A file that was set aside is raised once; a person clears that.
func (d *Daemon) watchSpool() {
	alarms := alarm.NewStanding(d.alarms, sayAgain)
	aside := 0
	look := time.NewTicker(spoolLook)
	defer look.Stop()
	for {
		st := d.ledger.Status()
		texts := spoolAlarms(d.spool.Status(), st, d.bounds())
		retainedAlarms(d.retained, texts)
		alarms.Set(texts)
		troubles := slices.Sorted(maps.Values(texts))
		if n := len(st.Aside); n > 0 {
			text := fmt.Sprintf("%d files of the ledger can't be read and were set aside, the last one %s: the deliveries in them are not found any more. Keep them, and see to the disk.", n, st.Aside[n-1])
			troubles = append(troubles, text)
			if n > aside {
				d.alarms.Raise("ledger-aside", text)
			}
			aside = n
		}
		d.watch.set(troubles)
		select {
		case <-look.C:
		case <-d.ctx.Done():
			return
		}
	}
}

// bounds returns how much the spool takes, as it was opened.
func (d *Daemon) bounds() spool.Bounds {
	cfg := d.config.Load().Spool // a reload that changes them is refused
	return spool.Bounds{
		Bytes: int64(cfg.Bytes), Messages: cfg.Messages,
		AgencyBytes: int64(cfg.AgencyBytes), AgencyMessages: cfg.AgencyMessages,
	}
}

// spoolAlarms says what is wrong with spool and ledger, by alarm.
func spoolAlarms(s spool.Status, l ledger.Status, most spool.Bounds) map[string]string {
	texts := make(map[string]string)
	switch {
	case s.Broken == nil, errors.Is(s.Broken, spool.ErrClosed):
	case errors.Is(s.Broken, spool.ErrAdopted):
		texts["spool-adopted"] = fmt.Sprintf("The spool takes nothing and delivers nothing: %v. This node needs a data directory of its own.", s.Broken)
	default:
		texts["spool-broken"] = fmt.Sprintf("The spool takes nothing more: %v. See to the disk, and then: mailcutover spool resume.", s.Broken)
	}
	if s.Full != nil {
		texts["spool-disk-full"] = fmt.Sprintf("New mail that must be held is put off: %v. What is there goes on; make room.", s.Full)
	}
	if text := full(s.Counts, most.Bytes, most.Messages); text != "" {
		texts["spool-full"] = "The spool has " + text + ": beyond that mail that must be held is put off."
	}
	for id, c := range s.Agency {
		if text := full(c, most.AgencyBytes, most.AgencyMessages); text != "" && id != "" {
			texts["spool-full/"+string(id)] = fmt.Sprintf("Agency %s has %s in the spool: beyond that its mail that must be held is put off.", id, text)
		}
	}
	if l.Err != nil {
		texts["ledger-broken"] = fmt.Sprintf("The ledger can't be written since %s, so that no mail goes to the platforms: %v. It goes on by itself once the disk takes it.", l.ErrSince.Format(time.RFC3339), l.Err)
	}
	if l.SyncErr != nil {
		texts["ledger-unsynced"] = fmt.Sprintf("The ledger is written but not made durable since %s: a power cut would make all deliveries since then doubtful: %v", l.SyncSince.Format(time.RFC3339), l.SyncErr)
	}
	return texts
}

// full says how much of a bound is taken, if that is nearly all.
func full(c spool.Counts, bytes int64, messages int) string {
	switch {
	case messages > 0 && float64(c.Messages) >= almostFull*float64(messages):
		return fmt.Sprintf("%d of at most %d messages", c.Messages, messages)
	case bytes > 0 && float64(c.Bytes) >= almostFull*float64(bytes):
		return fmt.Sprintf("%d of at most %d bytes", c.Bytes, bytes)
	}
	return ""
}
