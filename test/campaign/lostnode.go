package campaign

import (
	"context"
)

// lose kills a node for good, as far as people know. Back starts it again.
func (w *waysBack) lose(ctx context.Context, seen *RunSeen) (back func(context.Context) error, err error) {
	i := w.draw(len(w.c.Nodes))
	w.mu.Lock()
	other := w.taken >= 0
	if !other {
		w.taken = i
	}
	w.mu.Unlock()
	if other || !w.until(ctx, func() bool { return w.seize(i) }) {
		return nil, ctx.Err()
	}
	end := w.c.Trouble("killed for good", i, "")
	n := w.c.Nodes[i]
	n.Kill()
	w.tally.Add("node", "killed", 1)
	w.log("%s is killed for good", n.Name)
	seen.Lost = n.Name
	return func(ctx context.Context) error {
		defer func() {
			end()
			w.release(i)
			w.mu.Lock()
			w.taken = -1
			w.mu.Unlock()
		}()
		return w.start(ctx, n)
	}, nil
}

// lost reports whether people know a node to be gone.
func (w *waysBack) lost(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken >= 0 && w.c.Nodes[w.taken].Name == name
}

// burn kills a platform. End starts it again.
func (w *waysBack) burn(ctx context.Context, s *Store) (end func() error, err error) {
	if !w.until(ctx, func() bool { return s.mending.TryLock() }) {
		return nil, ctx.Err()
	}
	over := w.c.Trouble("platform "+s.Platform+": dead", -1, "")
	s.Kill()
	w.tally.Add("platform", "Dovecot dead, for people too", 1)
	return func() error {
		defer s.mending.Unlock()
		defer over()
		return s.Start(context.WithoutCancel(ctx))
	}, nil
}

// seize takes a node for oneself, if nothing is being done to it.
func (w *waysBack) seize(i int) bool {
	w.Storm.mu.Lock()
	defer w.Storm.mu.Unlock()
	free := !w.busy[i]
	w.busy[i] = true
	return free
}

func (w *waysBack) release(i int) {
	w.Storm.mu.Lock()
	defer w.Storm.mu.Unlock()
	w.busy[i] = false
}
