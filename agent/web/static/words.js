// Every word of the page, in English and Korean.
const WORDS = {
  en: {
    skip: "Skip to content", overview: "Overview", devices: "Devices", tags: "Tags", alarms: "Alarms",
    models: "Models", uplink: "Uplink", config: "Configuration", logs: "Log", downloads: "Downloads",
    running: "OK", degraded: "Degraded", rescue: "Not running", refused: "The file cannot be used", lost: "No connection to the gateway; trying again",
    clock: "Clock", version: "Version", up: "up", holds: "buffer holds", toSend: "rows to send",
    device: "Device", state: "State", endpoint: "Address", error: "Last error", restarts: "Restarts",
    tag: "Tag", value: "Value", unit: "Unit", quality: "Quality", age: "Age", reason: "Reason",
    badTags: "Tags without a usable value", ownTags: "The agent's own",
    filter: "Filter tags", trend: "Trend", close: "Close", hours: "Hours",
    alarm: "Alarm", since: "Since", priority: "Priority", limit: "Limit", text: "Text",
    ack: "Acknowledge", shelve: "Shelve 1 h", confirm: "Was right", dismiss: "False alarm",
    none: "Nothing.", instance: "Machine", model: "Model", stage: "Stage", release: "Release",
    score: "Last result", latency: "p50 / p99", rollback: "Roll back", promote: "Promote", pull: "Look for a newer version",
    time: "Time", backtest: "Back-test", sink: "Sink", connected: "connected", notConnected: "not connected",
    depth: "Rows to send", oldest: "Oldest", window: "Window", farEnd: "Far end",
    running_file: "What runs", digest: "Digest", draft: "Draft", check: "Check and plan", apply: "Apply the file",
    nothing: "Nothing would change.", breaks: "Consumers would miss:", history: "What ran here",
    by: "By", verdict: "Verdict", probation: "On probation", level: "From level",
    login: "Log in", logout: "Log out", user: "Name", password: "Password", code: "One-time code",
    haveCode: "I have a one-time code", enrol: "Make an account", viewer: "viewer", technician: "technician",
    admin: "admin", from: "From", to: "To", csv: "CSV", parquet: "Parquet", bundle: "Diagnostic bundle",
    bundleText: "What helps to find a fault, without secrets.", exportText: "Samples of tags out of the journal.",
    sure: "Are you sure?", yes: "Yes", why: "Why", read: "Read now", warnings: "Not to forget", drift: "Drift",
    maintenance: "Out of service 1 h", last_good: "runs the last good configuration", changed_on_disk: "the file on the disk is another one", cpu: "CPU", memory: "Memory",
    versions: "Versions under way", candidate: "Candidate", lastCheck: "Last look",
  },
  ko: {
    skip: "본문으로 건너뛰기", overview: "개요", devices: "장치", tags: "태그", alarms: "알람",
    models: "모델", uplink: "업링크", config: "설정", logs: "로그", downloads: "내려받기",
    running: "정상", degraded: "저하됨", rescue: "실행되지 않음", refused: "설정 파일을 쓸 수 없음", lost: "게이트웨이와 연결이 끊겼습니다. 다시 시도 중",
    clock: "시계", version: "버전", up: "가동", holds: "버퍼 용량", toSend: "보낼 행",
    device: "장치", state: "상태", endpoint: "주소", error: "최근 오류", restarts: "재시작",
    tag: "태그", value: "값", unit: "단위", quality: "품질", age: "경과", reason: "이유",
    badTags: "쓸 수 있는 값이 없는 태그", ownTags: "에이전트 자체",
    filter: "태그 찾기", trend: "추세", close: "닫기", hours: "시간",
    alarm: "알람", since: "시작", priority: "우선순위", limit: "한계", text: "내용",
    ack: "확인", shelve: "1시간 보류", confirm: "실제 알람", dismiss: "오경보",
    none: "없음.", instance: "기계", model: "모델", stage: "단계", release: "릴리스",
    score: "최근 결과", latency: "p50 / p99", rollback: "되돌리기", promote: "승격", pull: "새 버전 확인",
    time: "시각", backtest: "백테스트", sink: "싱크", connected: "연결됨", notConnected: "연결 안 됨",
    depth: "보낼 행", oldest: "가장 오래된", window: "윈도", farEnd: "상대",
    running_file: "실행 중인 설정", digest: "다이제스트", draft: "초안", check: "검사 및 계획", apply: "파일 적용",
    nothing: "바뀌는 것이 없습니다.", breaks: "수신 측에서 잃는 것:", history: "실행 이력",
    by: "실행자", verdict: "판정", probation: "시험 중", level: "수준 이상",
    login: "로그인", logout: "로그아웃", user: "이름", password: "비밀번호", code: "일회용 코드",
    haveCode: "일회용 코드가 있습니다", enrol: "계정 만들기", viewer: "조회자", technician: "기술자",
    admin: "관리자", from: "부터", to: "까지", csv: "CSV", parquet: "Parquet", bundle: "진단 묶음",
    bundleText: "고장 원인을 찾는 데 필요한 것. 비밀 정보는 없습니다.", exportText: "저널에 있는 태그 값.",
    sure: "계속할까요?", yes: "예", why: "이유", read: "지금 읽기", warnings: "잊지 말 것", drift: "드리프트",
    maintenance: "1시간 정비", last_good: "마지막 정상 설정으로 실행 중", changed_on_disk: "디스크의 파일이 실행 중인 설정과 다릅니다", cpu: "CPU", memory: "메모리",
    versions: "진행 중인 버전", candidate: "후보", lastCheck: "최근 확인",
  },
};

const language = (navigator.language || "en").startsWith("ko") ? "ko" : "en";
document.documentElement.lang = language;

export const word = (name) => WORDS[language][name] ?? WORDS.en[name] ?? name;

export function age(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "-";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function number(value, digits = 6) {
  if (value === null || value === undefined) return "-";
  return typeof value === "number" ? String(Number(value.toPrecision(digits))) : String(value);
}

// Local time with its offset: a screen never leaves in doubt which clock it shows.
export function when(ns) {
  if (!ns) return "-";
  const at = new Date(ns / 1e6), minutes = -at.getTimezoneOffset();
  const pad = (n) => String(n).padStart(2, "0");
  const offset = `${minutes < 0 ? "-" : "+"}${pad(Math.floor(Math.abs(minutes) / 60))}:${pad(Math.abs(minutes) % 60)}`;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} `
    + `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())} ${offset}`;
}

// The same for a time that was told as ISO 8601.
export const local = (text) => when(text ? Date.parse(text) * 1e6 : 0);
