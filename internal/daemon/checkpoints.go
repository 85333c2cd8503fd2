package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"mailcutover/admin"
	"mailcutover/audit"
	"mailcutover/audit/checkpoint"
	"mailcutover/internal/config"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// signingKey reads the key that signs the audit log; nil: there is none.
func signingKey(cfg *config.Config) (*checkpoint.Key, error) {
	if cfg.Audit.SigningKeyFile == "" {
		return nil, nil
	}
	k, err := checkpoint.ReadKey(cfg.Audit.SigningKeyFile)
	if err != nil {
		return nil, fmt.Errorf("audit.signing_key_file: %w", err)
	}
	return k, nil
}

// openCheckpoints makes what signs the audit log. It runs until the node's work ends, and then signs
// what is left.
func (d *Daemon) openCheckpoints(cfg *config.Config, log *audit.Log) (*checkpoint.Keeper, error) {
	key, err := signingKey(cfg)
	if err != nil {
		return nil, err
	}
	d.signing.Store(key)
	book, err := checkpoint.OpenBook(cmp.Or(cfg.Audit.CheckpointFile, filepath.Join(cfg.Data, "audit-checkpoints")))
	if err != nil {
		return nil, err
	}
	return checkpoint.NewKeeper(checkpoint.Options{
		Log: log, Book: book, Alarms: d.alarms, Logger: d.logger, Store: d.storeCheckpoints,
		Settings: func() checkpoint.Settings {
			a := &d.config.Load().Audit
			return checkpoint.Settings{Key: d.signing.Load(), Records: uint64(a.CheckpointRecords), Every: a.CheckpointEvery}
		},
	}), nil
}

// storedCheckpoints is how many checkpoints of a node the table keeps.
const storedCheckpoints = 50

// storeCheckpoints copies this node's last checkpoints into the table.
func (d *Daemon) storeCheckpoints(ctx context.Context, last []checkpoint.Checkpoint) error {
	var lines []string
	for _, c := range last[max(0, len(last)-storedCheckpoints):] {
		lines = append(lines, c.String())
	}
	state, node := d.replica.State(), d.config.Load().Node
	if state.Position().Incarnation == "" {
		return errors.New("the table hasn't been read yet")
	}
	doc, _ := state.Document(admin.CheckpointsKey + strings.ToLower(node))
	doc.Key, doc.Text = admin.CheckpointsKey+strings.ToLower(node), strings.Join(lines, "\n")
	_, err := d.table.Change(ctx, table.Change{
		ID: "audit-checkpoints/" + uuid.NewString(), Incarnation: state.Position().Incarnation, Term: state.Position().Term,
		Documents: []routing.Document{doc}, Guard: table.Guard{Rejoining: true},
		Who: node, What: fmt.Sprintf("checkpoint of the audit log: record %d", last[len(last)-1].Head.Number),
	})
	return err
}
