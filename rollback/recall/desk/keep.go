package desk

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	// keepPause is the time between two looks at what isn't a run's own work: nodes that are gone,
	// watermarks of others, what isn't needed any more.
	keepPause = 3 * time.Second

	// fetchPause is how long watermarks that no node gave aren't asked for again.
	fetchPause = time.Minute

	// keepPatience bounds one look at the nodes, and one change of the table.
	keepPatience = 10 * time.Second
)

// keep does what no run waits for, until ctx ends.
func (d *Desk) keep(ctx context.Context) {
	k := &keeper{d: d, since: make(map[routing.NodeID]time.Time), asked: make(map[routing.Digest]time.Time)}
	for pause(ctx, keepPause) {
		k.nodes(ctx)
		k.marks(ctx)
		k.clean(ctx)
	}
}

// keeper belongs to the goroutine of Desk.keep.
type keeper struct {
	d     *Desk
	since map[routing.NodeID]time.Time // since when a node isn't there
	asked map[routing.Digest]time.Time // when watermarks were asked for
	swept time.Time                    // when it was looked for what can go
	over  string                       // agencies that were finalised then
}

// nodes looks for nodes that have a share to bring and are gone: of one that is evicted the others
// take it over, for one that isn't there people are alarmed.
func (k *keeper) nodes(ctx context.Context) {
	d := k.d
	s := d.o.Replica.State()
	runs, _ := Runs(s)
	runs = slices.DeleteFunc(runs, func(r Run) bool { return r.Stands(s) != Running })
	texts := make(map[ID]string)
	defer func() {
		d.mu.Lock()
		d.absent = texts
		d.mu.Unlock()
	}()
	if len(runs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keepPatience)
	defer cancel()
	n, err := d.o.Table.Nodes(ctx)
	if err != nil {
		return // nobody knows more about them now
	}
	away := k.away(&n)
	for i := range runs {
		r := &runs[i]
		var lost []string
		for _, node := range r.active() {
			if node == d.o.Node || r.brought(s, node) {
				continue
			}
			if slices.ContainsFunc(n.Members, func(m routing.Member) bool { return m.Node == node && m.Evicted }) {
				if len(r.active()) == 1 {
					texts[r.ID] = fmt.Sprintf("%s %s of agency %s is node %s's alone, which is evicted: nobody brings what is left. End it, and begin another: mailcutover recall end %[2]s --reason ..., mailcutover recall run --agency %[3]s --reason ...", r.Kind, r.ID, r.Agency, node)
				} else {
					d.inherit(ctx, r.ID, node)
				}
				continue
			}
			if since, ok := away[node]; ok && d.now().Sub(since) >= longTrouble {
				lost = append(lost, string(node))
			}
		}
		if lost != nil && len(r.active()) == 1 {
			texts[r.ID] = fmt.Sprintf("%s %s of agency %s is node %s's alone, and it isn't there. Start it; if it is lost: mailcutover recall end %[2]s --reason ..., mailcutover recall run --agency %[3]s --reason ...", r.Kind, r.ID, r.Agency, lost[0])
		} else if lost != nil {
			texts[r.ID] = fmt.Sprintf("%s %s of agency %s: the share of %s is not brought, and it isn't there. Start it; if it is lost: mailcutover recall take-over %[2]s --without-node %[5]s --reason ...", r.Kind, r.ID, r.Agency, strings.Join(lost, ", "), lost[0])
		}
	}
}

// away returns the nodes without a lease, and since when this node sees that.
func (k *keeper) away(n *table.Nodes) map[routing.NodeID]time.Time {
	for _, m := range n.Members {
		l, ok := n.Leases[m.Node]
		if ok && l.Instance == m.Instance && !l.GivenUp() && l.ShortEnd.After(n.Time) {
			delete(k.since, m.Node)
		} else if _, known := k.since[m.Node]; !known {
			k.since[m.Node] = k.d.now()
		}
	}
	return k.since
}

// inherit hands the share of a node that is out of the table to the others.
func (d *Desk) inherit(ctx context.Context, id ID, node routing.NodeID) {
	err := d.store(ctx, fmt.Sprintf("take over the share of recall %s of node %s, which is evicted", id, node), func(s *routing.State) ([]routing.Document, error) {
		_, docs, err := TakeOver(s, id, node)
		if errors.Is(err, ErrNode) || errors.Is(err, ErrNotOpen) || errors.Is(err, ErrNoRun) {
			return nil, nil // somebody was faster
		}
		return docs, err
	})
	if err != nil && ctx.Err() == nil {
		d.o.Logger.Warn("recall: the share of an evicted node isn't taken over", "run", id, "node", node, "error", err)
	}
}

// marks fetches the watermarks that agencies' next recall needs, so that they are there also when
// the node that took them isn't any more.
func (k *keeper) marks(ctx context.Context) {
	d := k.d
	if d.o.Nodes == nil {
		return
	}
	s := d.o.Replica.State()
	for _, doc := range s.Documents(knownPrefix) {
		var of cutover
		if json.Unmarshal([]byte(doc.Text), &of) != nil || of.Watermarks.IsZero() {
			continue
		}
		if _, err := d.files.Bytes(of.Watermarks); !errors.Is(err, fs.ErrNotExist) || d.now().Sub(k.asked[of.Watermarks]) < fetchPause {
			continue
		}
		k.asked[of.Watermarks] = d.now()
		text, err := d.o.Nodes.Watermarks(ctx, of.Watermarks)
		if err == nil {
			err = d.files.Take(of.Watermarks, text)
		}
		if err != nil && ctx.Err() == nil {
			d.o.Logger.Warn("recall: no second copy of watermarks is kept here", "operation", of.Operation, "error", err)
		}
	}
}

// diskPrefix has, for each node that brings mailboxes of an operation, which disk its journals are on.
const diskPrefix = "recall-disk/"

func diskKey(r *Run, n routing.NodeID) string {
	return fmt.Sprintf("%s%s/%s/%s", diskPrefix, journalsOf(r), r.Agency+"-from-"+routing.AgencyID(r.From), n)
}

// sameDisk notes on which disk this node's journals of a run are. If it was another one before, the
// share says that what was known is lost.
func (d *Desk) sameDisk(ctx context.Context, w *work) error {
	own, key := d.disk, diskKey(&w.run, d.o.Node)
	return d.store(ctx, fmt.Sprintf("journals of recall %s", w.run.ID), func(s *routing.State) ([]routing.Document, error) {
		was, ok := s.Document(key)
		disks := strings.Fields(was.Text)
		if ok && len(disks) > 0 && disks[len(disks)-1] != own || len(disks) > 1 {
			note := "this node has another disk than before: what it had brought until then counts as copied, and what users have deleted since may come back once"
			w.mu.Lock()
			if !slices.Contains(w.notes, note) {
				w.notes = append(w.notes, note)
			}
			w.mu.Unlock()
		}
		if ok && len(disks) > 0 && disks[len(disks)-1] == own {
			return nil, nil
		}
		return []routing.Document{{Key: key, Text: strings.Join(append(disks, own), " "), Revision: was.Revision}}, nil
	})
}

// diskName names a disk: a random word in a file that is made once.
func diskName(path string) (string, error) {
	dir, err := durable.Open(nil, path)
	if err != nil {
		return "", fmt.Errorf("open the directory of recalls: %w", err)
	}
	const name = "disk"
	r, err := dir.Open(name)
	if err == nil {
		defer r.Close()
		text, err := io.ReadAll(io.LimitReader(r, 100))
		if word := strings.TrimSpace(string(text)); err == nil && len(word) == 32 {
			if _, err := hex.DecodeString(word); err == nil {
				return word, nil
			}
		}
		if err != nil {
			return "", fmt.Errorf("read which disk this is: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read which disk this is: %w", err)
	}
	word := random()
	if err := dir.Write(name, func(w io.Writer) error { _, err := io.WriteString(w, word+"\n"); return err }); err != nil {
		return "", fmt.Errorf("note which disk this is: %w", err)
	}
	return word, nil
}
