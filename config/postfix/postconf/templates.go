package postconf

func (r *run) templates(mode byte) error { return fatalf("-%c: no bounce templates are known", mode) }
