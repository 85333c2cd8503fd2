package splice

func newWatcher(e *Engine) (watcher, error) { return newWaiters(e) }
