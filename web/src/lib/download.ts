/** Files for the visitor's own disk. */

const RELEASE_MS = 60_000;

export function download(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), RELEASE_MS);
}

/** Fetches a file, with the key where one is needed: a link of the browser's own cannot carry it. */
export async function fetchFile(url: string, name: string, access: string | null): Promise<void> {
  const reply = await fetch(url, access === null ? {} : { headers: { Authorization: `Bearer ${access}` } });
  if (!reply.ok) throw new Error(`${name}: ${reply.status}`);
  download(await reply.blob(), name);
}

/** `20261120-134502`, in the visitor's own time. */
export function stamp(time: Date): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${time.getFullYear()}${two(time.getMonth() + 1)}${two(time.getDate())}`;
  return `${day}-${two(time.getHours())}${two(time.getMinutes())}${two(time.getSeconds())}`;
}
