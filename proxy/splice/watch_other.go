//go:build unix && !linux

package splice

func newWatcher(e *Engine) (watcher, error) { return newWaiters(e) }

// sent reports that it isn't known: the platform has ended its side too.
func sent(socket) bool { return true }
