package daemon

import (
	"cmp"
	"fmt"
	"path/filepath"
	"time"

	"mailcutover/internal/config"
	"mailcutover/internal/seal"
	"mailcutover/ledger/retained"
	"mailcutover/routing"
)

// openRetained opens the copies of what went to targets. They are asked about agencies from then
// on, so the replica is there already.
func (d *Daemon) openRetained(cfg *config.Config) error {
	if cfg.Retained.AgencyBytes == 0 {
		return nil
	}
	keys, err := diskKeys(cfg)
	if err != nil {
		return err
	}
	d.retained, err = retained.Open(retained.Options{
		Dir:         cmp.Or(cfg.Retained.Directory, filepath.Join(cfg.Data, "retained")),
		AgencyBytes: int64(cfg.Retained.AgencyBytes), TotalBytes: int64(cfg.Retained.TotalBytes), MaxAge: cfg.Retained.MaxAge,
		Uncompressed: cfg.Retained.Compression == config.CompressionNone, Keys: keys,
		WayBack: d.wayBack, Removed: d.copiesRemoved, Logger: d.logger,
	})
	if err != nil {
		return fmt.Errorf("open the retained copies: %w", err)
	}
	return nil
}

// diskKeys returns the keys of what lies on this node's disk; nil: it isn't encrypted.
func diskKeys(cfg *config.Config) (*seal.Keys, error) {
	if cfg.Encryption.KeyFile == "" {
		return nil, nil
	}
	return seal.ReadKeys(cfg.Encryption.KeyFile)
}

// wayBack says how the way back of an agency stands, as this node's copy of the table has it.
func (d *Daemon) wayBack(id routing.AgencyID) retained.WayBack {
	a, ok := d.replica.State().Agency(id)
	switch {
	case !ok:
		return retained.WayBackUnknown
	case a.Finalised:
		return retained.WayBackOver
	case a.Phase.Open() && a.Phase.OnTarget():
		return retained.WayBackOpen
	default:
		return retained.WayBackNone
	}
}

// copiesRemoved tells people when copies go though their agency's way back isn't over.
func (d *Daemon) copiesRemoved(r retained.Removal) {
	if r.Reason == retained.ReasonFinalised || r.Copies == 0 {
		return
	}
	if w := d.wayBack(r.Agency); w != retained.WayBackOpen && w != retained.WayBackNone {
		return
	}
	d.alarms.Raise("retained-removed/"+string(r.Agency), fmt.Sprintf("Retained copies of agency %s up to %s are gone (%s): a rollback with a dead target can't bring that mail back from this node. Look at retained.agency_bytes and the disk, or finalise the agency.",
		r.Agency, r.Last.UTC().Format(time.RFC3339), r.Reason))
}

// retainer returns what makes copies of mail, or nil.
func (d *Daemon) retainer() interface {
	Begin(agencies ...routing.AgencyID) *retained.Incoming
} {
	if d.retained == nil {
		return nil // not a Store that is nil
	}
	return d.retained
}

// retainedAlarms says what is wrong with the copies, by alarm. Mail goes on all the same.
func retainedAlarms(s *retained.Store, texts map[string]string) {
	if s == nil {
		return
	}
	st := s.Status()
	if st.Err != nil {
		texts["retained-failed"] = fmt.Sprintf("Mail is delivered, but copies of it have not been retained since %s (%d in all): %v. After a rollback with a dead target those are missing.", st.ErrSince.Format(time.RFC3339), st.Failed, st.Err)
	}
	damaged := 0
	for _, a := range st.Agencies {
		damaged += a.Damaged
	}
	if damaged += int(st.Damaged); damaged > 0 {
		texts["retained-damaged"] = fmt.Sprintf("%d retained copies, or groups of them, can't be read: see mailcutover retained status, and to the disk and encryption.key_file.", damaged)
	}
}

// copies returns how the retained copies are, for metrics; the zero Status before they are open.
func (d *Daemon) copies() retained.Status {
	if s := d.retained; s != nil {
		return s.Status()
	}
	return retained.Status{}
}
