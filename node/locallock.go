package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// LocalLock is an agency that was locked on this node alone, without the table
// (docs/architecture/switch.md, node rule 10). It lasts until the table has the lock.
type LocalLock struct {
	Agency routing.AgencyID `json:"agency"`
	Who    string           `json:"who"` // a person
	Reason string           `json:"reason"`
	Since  time.Time        `json:"since"`
	ID     string           `json:"id"` // of the change that locks it in the table
}

// LockLocal closes an agency on this node at once, whatever the table says or whether it
// answers. When it returns nil the lock outlives the process; after an error the agency is
// closed until the process ends. As soon as the table can be reached it is locked there,
// for all nodes, and from then on only the table can open it. An agency that is locked
// here already stays as it is.
func (k *Keeper) LockLocal(id routing.AgencyID, who, reason string) (LocalLock, error) {
	if _, err := routing.ParseAgencyID(string(id)); err != nil {
		return LocalLock{}, fmt.Errorf("lock on this node: %w", err)
	}
	if who == "" || reason == "" {
		return LocalLock{}, fmt.Errorf("lock %s on this node: want who and why", id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.locks[id]; ok {
		return l, nil
	}
	l := LocalLock{Agency: id, Who: who, Reason: reason, Since: time.Now().UTC(), ID: "lock-local " + uuid.NewString()}
	k.locks[id] = l
	k.gate.setLocks(agenciesOf(k.locks))
	k.o.Logger.Warn("agency is locked on this node", "agency", id, "reason", reason)
	if err := k.writeLocks(); err != nil {
		return l, fmt.Errorf("lock %s on this node: it is closed until the process ends, but not for longer: %w", id, err)
	}
	k.Kick()
	return l, nil
}

// LocalLocks returns the locks that only this node has, by agency.
func (k *Keeper) LocalLocks() []LocalLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	return sortedLocks(k.locks)
}

func sortedLocks(locks map[routing.AgencyID]LocalLock) []LocalLock {
	return slices.SortedFunc(maps.Values(locks), func(a, b LocalLock) int { return strings.Compare(string(a.Agency), string(b.Agency)) })
}

func agenciesOf(locks map[routing.AgencyID]LocalLock) map[routing.AgencyID]struct{} {
	ids := make(map[routing.AgencyID]struct{}, len(locks))
	for id := range locks {
		ids[id] = struct{}{}
	}
	return ids
}

// writeLocks makes the locks durable. k.mu is held.
func (k *Keeper) writeLocks() error { return k.write(locksFile, sortedLocks(k.locks)) }

// mergeLocks locks in the table what is locked here only. What fails is tried again after
// the next renewal.
func (k *Keeper) mergeLocks(ctx context.Context) {
	for _, l := range k.LocalLocks() {
		if err := k.mergeLock(ctx, l); err != nil && ctx.Err() == nil {
			k.o.Logger.Warn("this node's lock is not in the table yet", "agency", l.Agency, "error", err)
		}
	}
}

func (k *Keeper) mergeLock(ctx context.Context, l LocalLock) error {
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	state := k.o.Replica.State()
	rec, ok := state.Agency(l.Agency)
	if !ok {
		return errors.New("the table doesn't know the agency")
	}
	pos := state.Position()
	if !rec.Locked {
		next, err := rec.InTerm(pos.Term).Lock()
		if err != nil {
			return err
		}
		pos, err = k.o.Table.Change(ctx, table.Change{
			ID: l.ID, Incarnation: state.Position().Incarnation, Term: state.Position().Term,
			Agencies: []routing.Agency{next}, Guard: table.Guard{Rejoining: true},
			Who: l.Who, What: "lock", Reason: l.Reason,
		})
		if errors.Is(err, table.ErrReused) { // it was locked by this, and people have unlocked it since
			pos, err = state.Position(), nil
		}
		if err != nil {
			return err
		}
	}
	if err := k.o.Table.Confirm(ctx); err != nil {
		return err
	}
	if err := k.o.Replica.Wait(ctx, pos); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.locks, l.Agency)
	if err := k.writeLocks(); err != nil {
		k.locks[l.Agency] = l
		return err
	}
	k.gate.setLocks(agenciesOf(k.locks))
	k.o.Logger.Info("this node's lock is in the table now", "agency", l.Agency, "revision", pos.Revision)
	return nil
}
